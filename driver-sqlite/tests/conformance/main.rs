//! The conformance suite on SQLite: with wake-ups, and without, as on systems that have none.

mod backend;

use std::process::ExitCode;
use std::sync::Arc;

use backend::SqliteBackend;
use leasehold_conformance::Backend;

#[expect(clippy::print_stdout, reason = "a test says why it cannot run")]
fn main() -> ExitCode {
    let mut backends = Vec::new();
    for push in [true, false] {
        match SqliteBackend::new(push) {
            Ok(backend) => backends.push(Arc::new(backend) as Arc<dyn Backend>),
            Err(error) => {
                println!("{error}");
                return ExitCode::FAILURE;
            }
        }
    }
    leasehold_conformance::main(backends)
}

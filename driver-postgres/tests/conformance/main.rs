//! The conformance suite on PostgreSQL, from each place where a server can be had (see
//! `leasehold_conformance::servers` for how to choose) in the mode `lease`,
//! and on one of them in the mode `session`.

mod backend;

use std::process::ExitCode;
use std::sync::Arc;

use backend::PostgresBackend;
use leasehold_conformance::Backend;
use leasehold_conformance::servers::Target;
use leasehold_driver_postgres::Mode;

#[expect(clippy::print_stdout, reason = "a test says what it leaves out")]
fn main() -> ExitCode {
    let plan = match Target::plan(&Target::POSTGRES) {
        Ok(plan) => plan,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    for target in &plan.left_out {
        println!("left out, as asked: {target}");
    }
    let mut backends: Vec<_> = plan
        .run
        .iter()
        .map(|target| PostgresBackend::new(*target, Mode::Lease))
        .collect();
    // One server is enough for the mode that needs a connection for each lock: they are dear to open.
    backends.extend(
        plan.run
            .last()
            .map(|target| PostgresBackend::new(*target, Mode::Session)),
    );
    let backends = backends.into_iter();
    leasehold_conformance::main(backends.map(|backend| Arc::new(backend) as Arc<dyn Backend>))
}

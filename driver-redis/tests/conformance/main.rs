//! The conformance suite on Redis and Valkey, from each place where a server can be had: see
//! `leasehold_conformance::servers` for how to choose.

mod admin;
mod backend;

use std::process::ExitCode;
use std::sync::Arc;

use backend::RedisBackend;
use leasehold_conformance::Backend;
use leasehold_conformance::servers::Target;

#[expect(clippy::print_stdout, reason = "a test says what it leaves out")]
fn main() -> ExitCode {
    let plan = match Target::plan(&Target::REDIS_LIKE) {
        Ok(plan) => plan,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    for target in &plan.left_out {
        println!("left out, as asked: {target}");
    }
    let backends = plan.run.into_iter().map(RedisBackend::new);
    leasehold_conformance::main(backends.map(|backend| Arc::new(backend) as Arc<dyn Backend>))
}

//! The conformance suite on ZooKeeper, from each place where a server can be had, see `leasehold_conformance::servers`
//! for how to choose; and on an ensemble of three where this machine has the program.

#[path = "../admin/mod.rs"]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "bits that Java counts in"
)]
mod admin;
mod backend;

use std::process::ExitCode;
use std::sync::Arc;

use backend::ZkBackend;
use leasehold_conformance::Backend;
use leasehold_conformance::servers::{Origin, Target};

#[expect(clippy::print_stdout, reason = "a test says what it leaves out")]
fn main() -> ExitCode {
    let plan = match Target::plan(&Target::ZOOKEEPER) {
        Ok(plan) => plan,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    for target in &plan.left_out {
        println!("left out, as asked: {target}");
    }
    let local = plan
        .run
        .iter()
        .any(|target| target.origin == Origin::LocalProcess);
    let ensemble = local.then(ZkBackend::ensemble);
    let backends = plan.run.into_iter().map(ZkBackend::new).chain(ensemble);
    leasehold_conformance::main(backends.map(|backend| Arc::new(backend) as Arc<dyn Backend>))
}

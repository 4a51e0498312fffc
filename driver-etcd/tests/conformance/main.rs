//! The conformance suite on etcd, from each place where a server can be had, see `leasehold_conformance::servers` for how
//! to choose; and on a cluster of three where this machine has the program.

mod backend;
mod metrics;

use std::process::ExitCode;
use std::sync::Arc;

use backend::EtcdBackend;
use leasehold_conformance::Backend;
use leasehold_conformance::servers::{Origin, Target};

#[expect(clippy::print_stdout, reason = "a test says what it leaves out")]
fn main() -> ExitCode {
    let plan = match Target::plan(&Target::ETCD) {
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
    let cluster = local.then(EtcdBackend::cluster);
    let backends = plan.run.into_iter().map(EtcdBackend::new).chain(cluster);
    leasehold_conformance::main(backends.map(|backend| Arc::new(backend) as Arc<dyn Backend>))
}

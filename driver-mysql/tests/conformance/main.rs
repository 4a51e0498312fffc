//! The conformance suite on MySQL and MariaDB, in both modes, from each place where a server can be had: see
//! `leasehold_conformance::servers` for how to choose.

mod backend;

use std::process::ExitCode;
use std::sync::Arc;

use backend::{How, MysqlBackend};
use leasehold_conformance::Backend;
use leasehold_conformance::servers::Target;

#[expect(clippy::print_stdout, reason = "a test says what it leaves out")]
fn main() -> ExitCode {
    let plan = match Target::plan(&Target::MYSQL_LIKE) {
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
        .map(|target| MysqlBackend::new(*target, How::Lease))
        .collect();
    // One server of each kind is enough for the mode that needs a connection for each lock: they are dear to open.
    for (place, target) in plan.run.iter().enumerate() {
        if plan.run[place + 1..]
            .iter()
            .all(|later| later.kind != target.kind)
        {
            backends.push(MysqlBackend::new(*target, How::Session));
        }
    }
    // One server is enough to see that waiters who ask by themselves are served: MySQL, which refuses more than MariaDB.
    if let Some(target) = plan.run.first() {
        backends.push(MysqlBackend::new(*target, How::Poll));
    }
    let backends = backends.into_iter();
    leasehold_conformance::main(backends.map(|backend| Arc::new(backend) as Arc<dyn Backend>))
}

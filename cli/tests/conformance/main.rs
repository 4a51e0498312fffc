//! The conformance suite's scenarios about the program, on SQLite and on a server of each kind.

mod backend;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use backend::{Place, ProgramBackend};
use leasehold_conformance::servers::{Origin, Target};
use leasehold_conformance::{Backend, Group, main_of};

#[expect(clippy::print_stdout, reason = "a test says what it leaves out")]
fn main() -> ExitCode {
    let mut targets = Target::all();
    // One version of each is enough for the program.
    targets.retain(|target| target.origin == Origin::Container);
    let (folder, plan) = match (tempfile::tempdir(), Target::plan(&targets)) {
        (Ok(folder), Ok(plan)) => (folder, plan),
        (Err(error), _) => {
            println!("no folder for the file: {error}");
            return ExitCode::FAILURE;
        }
        (_, Err(error)) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    for target in &plan.left_out {
        println!("left out, as asked: {target}");
    }
    let program = PathBuf::from(env!("CARGO_BIN_EXE_leasehold"));
    let file = Place::File(folder.path().join("locks.db"));
    let places = plan.run.into_iter().map(Place::server).chain([file]);
    let backends = places.map(|place| Arc::new(ProgramBackend::new(place, &program)) as Arc<dyn Backend>);
    main_of(&[Group::Program], backends)
}

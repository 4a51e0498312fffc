//! The suite on the reference model: on virtual time, and once more on the real clock, where threads race.

use std::process::ExitCode;
use std::sync::Arc;

use leasehold_conformance::{Backend, Clock, MemoryBackend, main as conformance};

fn main() -> ExitCode {
    conformance(
        [Clock::Virtual, Clock::Real].map(|clock| Arc::new(MemoryBackend::new(clock)) as Arc<dyn Backend>),
    )
}

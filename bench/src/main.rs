//! Compares Leasehold with what each backend can do at best.

use std::process::ExitCode;

use leasehold_bench::program::{self, Nobody};

fn main() -> ExitCode {
    program::main(Nobody)
}

//! A wall clock of its own for a process, by a library that is preloaded into it.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    sync::PoisonError,
    time::Duration,
};

use super::ServerError;

const SOURCE: &str = include_str!("clock.c");

/// The offset of a server's clock, in a file that the server has mapped.
#[derive(Debug)]
pub(super) struct WallClock {
    file: PathBuf,
    nanoseconds: Mutex<i64>,
}

impl WallClock {
    /// Compiles the library into `folder`.
    pub(super) fn make(folder: &Path) -> Result<Self, ServerError> {
        let source = folder.join("clock.c");
        fs::write(&source, SOURCE).map_err(ServerError::io("write the source of the clock"))?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-o"]);
        compiler.arg(library(folder)).arg(&source).stdin(Stdio::null());
        let output = compiler.output().map_err(ServerError::io("run `cc`"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(ServerError::io("compile the clock")(io::Error::other(said)));
        }
        let clock = Self {
            file: folder.join("clock"),
            nanoseconds: Mutex::new(0),
        };
        fs::write(&clock.file, 0_i64.to_ne_bytes()).map_err(ServerError::io("write the clock"))?;
        Ok(clock)
    }

    /// What a process needs to have it.
    pub(super) fn env(&self, folder: &Path) -> [(&'static str, String); 2] {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        [
            ("LD_PRELOAD", text(&library(folder))),
            ("LEASEHOLD_TEST_CLOCK", text(&self.file)),
        ]
    }

    pub(super) fn step(&self, by: Duration, forward: bool) -> io::Result<()> {
        let mut nanoseconds = self.nanoseconds.lock().unwrap_or_else(PoisonError::into_inner);
        let by = i64::try_from(by.as_nanos()).map_err(io::Error::other)?;
        *nanoseconds += if forward { by } else { -by };
        // In its place: the file must never be shorter than what is mapped.
        let mut file = File::options().write(true).open(&self.file)?;
        file.write_all(&nanoseconds.to_ne_bytes())
    }
}

fn library(folder: &Path) -> PathBuf {
    folder.join("clock.so")
}

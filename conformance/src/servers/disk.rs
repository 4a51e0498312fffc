//! A disk of a few megabytes for a process, so that it can be full.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{ServerError, user::User};

/// The file that takes all the space.
pub(super) const FILLER: &str = "filler";

/// A file system in memory, mounted at a folder. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Disk(PathBuf);

impl Disk {
    /// Needs root.
    pub(super) fn mount(folder: &Path, bytes: u64, user: Option<User>) -> Result<Self, ServerError> {
        let owner = user.map(|user| user.mount_options()).unwrap_or_default();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o"]);
        mount.arg(format!("size={bytes},mode=700{owner}"));
        mount.arg("leasehold-test").arg(folder);
        let output = mount.stdin(Stdio::null()).output();
        let output = output.map_err(ServerError::io("run `mount`"))?;
        if output.status.success() {
            return Ok(Self(folder.into()));
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(ServerError::io("mount a small disk, which takes root")(
            io::Error::other(said.trim().to_owned()),
        ))
    }

    pub(super) fn fill(&self) -> io::Result<()> {
        let mut file = File::create(self.0.join(FILLER))?;
        loop {
            match file.write_all(&[0; 4096]) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                written => written?,
            }
        }
    }

    pub(super) fn free(&self) -> io::Result<()> {
        match fs::remove_file(self.0.join(FILLER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, because a process that was just killed may still be letting go of it.
        let mut umount = Command::new("umount");
        umount.arg("-l").arg(&self.0).stdin(Stdio::null());
        let done = umount.status();
        debug_assert!(
            done.as_ref().is_ok_and(|status| status.success()),
            "umount: {done:?}"
        );
    }
}

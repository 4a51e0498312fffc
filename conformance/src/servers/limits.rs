//! What a test can do to a server that asked for it: fill its disk, step its clock.

use std::{io, time::Duration};

use super::{
    Server, ServerError,
    disk::{self, Disk},
    request::SMALL_DISK,
    server::Backend,
};

impl Server {
    /// Takes what is left of the disk that [`ServerRequest::disk_limit`] asked for.
    ///
    /// [`ServerRequest::disk_limit`]: super::ServerRequest::disk_limit
    ///
    /// # Errors
    /// [`ServerError::NotOurs`] for a server given by URL; [`ServerError::Unsupported`] for one whose disk has no limit;
    /// [`ServerError::Docker`]; [`ServerError::Io`].
    pub async fn fill_disk(&self) -> Result<(), ServerError> {
        let script = format!("cat /dev/zero > {SMALL_DISK}/{}", disk::FILLER);
        self.disk(Disk::fill, script).await
    }

    /// Gives back what [`fill_disk`](Self::fill_disk) took.
    ///
    /// # Errors
    /// As [`fill_disk`](Self::fill_disk).
    pub async fn free_disk(&self) -> Result<(), ServerError> {
        let script = format!("rm -f {SMALL_DISK}/{}", disk::FILLER);
        self.disk(Disk::free, script).await
    }

    async fn disk(
        &self,
        in_process: fn(&Disk) -> io::Result<()>,
        in_container: String,
    ) -> Result<(), ServerError> {
        let unlimited = || ServerError::Unsupported {
            kind: self.kind(),
            what: "a disk to fill, unless it is asked for".into(),
        };
        match &self.backend {
            Backend::Given => Err(self.not_ours()),
            Backend::Process(process) => {
                let disk = process.disk().ok_or_else(unlimited)?;
                in_process(disk).map_err(ServerError::io("fill or free the disk"))
            }
            Backend::Container(container) if container.has_small_disk() => {
                let command = ["sh".into(), "-c".into(), in_container];
                container.run(command).await.map(drop)
            }
            Backend::Container(_) => Err(unlimited()),
        }
    }

    /// Steps the wall clock that [`ServerRequest::wall_clock`] asked for, relative to what it shows now.
    ///
    /// [`ServerRequest::wall_clock`]: super::ServerRequest::wall_clock
    ///
    /// # Errors
    /// [`ServerError::Unsupported`] for a server that was started without; [`ServerError::Io`].
    pub fn step_clock(&self, by: Duration, forward: bool) -> Result<(), ServerError> {
        let clock = match &self.backend {
            Backend::Process(process) => process.clock(),
            _ => None,
        };
        let clock = clock.ok_or_else(|| ServerError::Unsupported {
            kind: self.kind(),
            what: "a clock to step, unless it is asked for".into(),
        })?;
        clock.step(by, forward).map_err(ServerError::io("step the clock"))
    }
}

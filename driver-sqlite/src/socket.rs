//! Datagram sockets with names in a folder.
//!
//! A name in `sockaddr_un` has about a hundred bytes. On Linux a longer one is reached through a descriptor of its
//! folder; elsewhere it is an error, and the caller does without a socket.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram as BlockingDatagram;
use std::path::{Path, PathBuf};

use tokio::net::UnixDatagram;

/// The room for a path in `sockaddr_un` on the systems that have the least, without its NUL.
const MAX_SOCKET_PATH: usize = 103;
/// How many entries of the folder one sweep looks at.
const SWEEP_LIMIT: usize = 4096;
/// A name that is none of ours is not touched.
const ID_DIGITS: usize = 16;

/// Is `id` the name of a socket, and not a path to somewhere else?
pub(crate) fn is_id(id: &str) -> bool {
    id.len() == ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The name that random bits give.
pub(crate) fn id(bits: u128) -> String {
    format!("{:016x}", bits >> 64)
}

/// A path that fits, and the folder that must stay open while it is used.
struct Reach {
    path: PathBuf,
    _folder: Option<fs::File>,
}

impl Reach {
    fn new(folder: &Path, id: &str) -> io::Result<Self> {
        let path = folder.join(id);
        if path.as_os_str().len() <= MAX_SOCKET_PATH {
            return Ok(Self { path, _folder: None });
        }
        if !cfg!(any(target_os = "linux", target_os = "android")) {
            return Err(io::Error::from(io::ErrorKind::InvalidFilename));
        }
        let folder = fs::File::open(folder)?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&folder);
        Ok(Self {
            path: format!("/proc/self/fd/{number}/{id}").into(),
            _folder: Some(folder),
        })
    }
}

/// Makes the socket `id`, for those who may use `database`, and the folder when it is missing.
pub(crate) fn bind(folder: &Path, id: &str, database: &Path) -> io::Result<UnixDatagram> {
    let database = fs::metadata(database)?;
    let rights = database.permissions().mode() & 0o666;
    // To enter a folder takes the right to execute it.
    let made = fs::DirBuilder::new().mode(0o700).create(folder);
    match made {
        Ok(()) => share(folder, rights | (rights & 0o444) >> 2, database.gid())?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let reach = Reach::new(folder, id)?;
    let socket = UnixDatagram::bind(&reach.path)?;
    share(&reach.path, rights, database.gid())?;
    Ok(socket)
}

fn share(path: &Path, mode: u32, group: u32) -> io::Result<()> {
    if mode & 0o070 != 0 {
        // Fails for those who are not in that group, which then cannot be meant.
        std::os::unix::fs::chown(path, None, Some(group)).ok();
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Sends `message` to the socket `id` without waiting.
///
/// A socket of its own for each message: what a stopped process does not read counts against the room of the sender.
pub(crate) fn send(folder: &Path, id: &str, message: &[u8]) -> io::Result<()> {
    let reach = Reach::new(folder, id)?;
    let socket = BlockingDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to(message, &reach.path).map(drop)
}

/// Does the error of [`send`] say that nobody reads this socket any more?
pub(crate) fn says_dead(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
    )
}

/// Removes the sockets of killed processes.
pub(crate) fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.take(SWEEP_LIMIT) {
        let name = entry?.file_name();
        let Some(id) = name.to_str().filter(|name| is_id(name)) else {
            continue;
        };
        let reach = Reach::new(folder, id)?;
        let refused = BlockingDatagram::unbound()?
            .connect(&reach.path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if refused {
            fs::remove_file(folder.join(id)).ok();
        }
    }
    Ok(())
}

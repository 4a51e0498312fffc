//! The file, its folder and what they lie on.
//!
//! Nothing here opens the database file: closing any descriptor of it would drop the locks that SQLite holds on it
//! for this whole process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lockcore::{Env, Error, ErrorKind, Result};

use crate::error::classify_io;

/// Makes sure that `path` is a file on a local disk, made by us if it was missing, and gives its real path.
pub(crate) fn prepare(path: &Path, env: &Env) -> Result<PathBuf> {
    let path = std::path::absolute(path).map_err(|error| classify_io(error, "find", path))?;
    let folder = path
        .parent()
        .ok_or_else(|| Error::new(ErrorKind::Invalid, "the path of a SQLite database names a file"))?;
    // Before anything is made there.
    if let Some(existing) = folder.ancestors().find(|folder| folder.exists()) {
        if !existing.is_dir() {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{} is no folder: name a database file in one", existing.display()),
            ));
        }
        refuse_network(existing)?;
    }
    make_folder(folder).map_err(|error| classify_io(error, "make the folder", folder))?;
    if !exists(&path)? {
        create(&path, env)?;
    }
    // Through links, so that every process finds the same folder of sockets.
    let path = fs::canonicalize(&path).map_err(|error| classify_io(error, "find", &path))?;
    if let Some(folder) = path.parent() {
        refuse_network(folder)?;
        refuse_mounted_file(&path, folder)?;
    }
    Ok(path)
}

fn exists(path: &Path) -> Result<bool> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(true),
        Ok(_) => Err(Error::new(
            ErrorKind::Invalid,
            format!("{} is no file: name a database file", path.display()),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(classify_io(error, "look at", path)),
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Makes an empty file that only its owner can use. It is made under another name and linked, so that our descriptor
/// of it is closed before anybody locks it.
#[cfg(unix)]
fn create(path: &Path, env: &Env) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;

    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{:032x}", env.random_u128()?));
    let draft = PathBuf::from(draft);
    let made = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .map(drop);
    made.map_err(|error| classify_io(error, "make", path))?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft).map_err(|error| classify_io(error, "remove", &draft))?;
    match linked {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // A disk without links is one without rights too.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(classify_io(error, "make", path)),
    }
}

#[cfg(not(unix))]
fn create(_path: &Path, _env: &Env) -> Result<()> {
    Ok(())
}

/// A file that is mounted by itself, as into a container, has its log and its shared memory somewhere else for everybody.
fn refuse_mounted_file(path: &Path, folder: &Path) -> Result<()> {
    let disk = |path| identity(path).map(|(disk, _)| disk);
    if disk(path) == disk(folder) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!(
            "{} is mounted by itself: mount its folder instead",
            path.display()
        ),
    ))
}

/// What tells a file from another one that took its name; `None` when it is gone or the system does not say.
pub(crate) fn identity(path: &Path) -> Option<(u64, u64)> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let found = fs::metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    }
    #[cfg(not(unix))]
    {
        // An open database cannot be removed there.
        let _ = path;
        Some((0, 0))
    }
}

#[cfg(target_os = "linux")]
fn refuse_network(folder: &Path) -> Result<()> {
    let found = rustix::fs::statfs(folder).map_err(|error| classify_io(error.into(), "look at", folder))?;
    // The type's width differs between processors; the numbers have 32 bits.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "statfs(2) has numbers of 32 bits in a type of the processor's width"
    )]
    let magic = found.f_type as u32;
    let name = match magic {
        FUSE => fuse_name(folder),
        _ => NETWORK
            .iter()
            .find(|(number, _)| *number == magic)
            .map(|(_, name)| (*name).to_owned()),
    };
    name.map_or(Ok(()), |name| Err(network(folder, &name)))
}

#[cfg(not(target_os = "linux"))]
fn refuse_network(_folder: &Path) -> Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn network(folder: &Path, name: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "{} is on a network file system ({name}), where SQLite cannot share a database safely: \
             name a file on a local disk, or use a server such as redis:",
            folder.display()
        ),
    )
}

#[cfg(target_os = "linux")]
const FUSE: u32 = 0x6573_5546;

/// The numbers of statfs(2) and linux/magic.h.
#[cfg(target_os = "linux")]
const NETWORK: [(u32, &str); 15] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x5346_414F, "AFS"),
    (0x6B41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x00C3_6400, "Ceph"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x0102_1997, "9P"),
    (0x7461_636F, "OCFS2"),
    (0x0116_1970, "GFS2"),
    (0x1980_0202, "BeeGFS"),
    (0x786F_4256, "a shared folder of VirtualBox"),
];

/// What FUSE is used for on networks, and to share a host's folder with a virtual machine. Others are local.
#[cfg(target_os = "linux")]
const NETWORK_FUSE: [&str; 14] = [
    "virtiofs",
    "fuse.sshfs",
    "fuse.glusterfs",
    "fuse.ceph",
    "fuse.ceph-fuse",
    "fuse.s3fs",
    "fuse.rclone",
    "fuse.gcsfuse",
    "fuse.juicefs",
    "fuse.davfs2",
    "fuse.curlftpfs",
    "fuse.moosefs",
    "fuse.seaweedfs",
    "fuse.hdfs",
];

#[cfg(target_os = "linux")]
fn fuse_name(folder: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;

    let device = fs::metadata(folder).ok()?.dev();
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let name = mounted_as(&mounts, &device)?;
    NETWORK_FUSE.contains(&name).then(|| name.to_owned())
}

/// The type of the file system `device` (`major:minor`), in the format of proc_pid_mountinfo(5).
#[cfg(target_os = "linux")]
fn mounted_as<'a>(mounts: &'a str, device: &str) -> Option<&'a str> {
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some(device))?;
    line.split_once(" - ")?.1.split(' ').next()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn mountinfo_is_read() {
        let mounts = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n\
                      40 35 0:52 / /srv rw shared:7 - fuse.sshfs host:/ rw,user_id=0\n";
        assert_eq!(mounted_as(mounts, "0:52"), Some("fuse.sshfs"));
        assert_eq!(mounted_as(mounts, "98:0"), Some("ext3"));
        assert_eq!(mounted_as(mounts, "1:1"), None);
    }

    #[tokio::test]
    async fn folders_and_file_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/locks.db");
        let env = Env::system();
        let real = prepare(&path, &env).unwrap();
        assert_eq!(prepare(&path, &env).unwrap(), real);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&real), 0o600);
        assert_eq!(mode(real.parent().unwrap()), 0o700);
        assert_eq!(fs::read_dir(real.parent().unwrap()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let env = Env::system();
        let kind = |path: &Path| prepare(path, &env).unwrap_err().kind();
        assert_eq!(kind(folder.path()), ErrorKind::Invalid);
        assert_eq!(kind(Path::new("/dev/null")), ErrorKind::Invalid);
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(kind(&file.join("x.db")), ErrorKind::Invalid);
        assert_eq!(kind(&folder.path().join("n".repeat(300))), ErrorKind::Invalid);
    }
}

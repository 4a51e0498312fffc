//! The system's user of a server: several servers refuse to be run by root.

use std::{fs, io, path::Path, process::Command};

/// A user's number and group.
#[derive(Debug, Clone, Copy)]
pub(super) struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// What makes a file system this user's.
    pub(super) fn mount_options(self) -> String {
        format!(",uid={},gid={}", self.uid, self.gid)
    }
}

/// As root: the user of this name, or `nobody`. Everybody else is who they are.
#[cfg(unix)]
pub(super) fn of(name: Option<&str>) -> Option<User> {
    let name = name?;
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    [name, "nobody"].into_iter().find_map(|name| entry(&users, name))
}

#[cfg(not(unix))]
pub(super) fn of(_: Option<&str>) -> Option<User> {
    None
}

fn entry(users: &str, name: &str) -> Option<User> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let mut numbers = fields.skip(1).map_while(|field| field.parse().ok());
        Some(User {
            uid: numbers.next()?,
            gid: numbers.next()?,
        })
    })
}

/// Gives them the folder and what is in it, which nobody else can read.
#[cfg(unix)]
pub(super) fn own_all(path: &Path, user: Option<User>) -> io::Result<()> {
    use std::os::unix::fs::{PermissionsExt, chown};
    let is_folder = path.is_dir();
    let mode = if is_folder { 0o700 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if is_folder {
        for entry in fs::read_dir(path)? {
            own_all(&entry?.path(), user)?;
        }
    }
    user.map_or(Ok(()), |user| chown(path, Some(user.uid), Some(user.gid)))
}

#[cfg(not(unix))]
pub(super) fn own_all(_: &Path, _: Option<User>) -> io::Result<()> {
    Ok(())
}

/// The command will run as this user.
pub(super) fn become_user(command: &mut Command, user: Option<User>) {
    #[cfg(unix)]
    if let Some(User { uid, gid }) = user {
        std::os::unix::process::CommandExt::uid(command, uid);
        std::os::unix::process::CommandExt::gid(command, gid);
    }
    #[cfg(not(unix))]
    let _ = (command, user);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\npostgres:x:101:104:PostgreSQL,,,:/var:/bin/bash\n";
        let user = entry(users, "postgres").unwrap();
        assert_eq!((user.uid, user.gid), (101, 104));
        assert!(entry(users, "post").is_none());
    }
}

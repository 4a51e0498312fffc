//! What is risky about a database file, for `leasehold doctor`.

use std::fs;
use std::path::Path;

use lockcore::{Diagnosis, Error, ErrorKind, ExpiryClock, Result, WakeUp};

use crate::claims::{Shared, get};

const LOOK: &str = "SELECT sqlite_version(), (SELECT journal_mode FROM pragma_journal_mode), \
     (SELECT synchronous FROM pragma_synchronous), (SELECT quick_check FROM pragma_quick_check LIMIT 1), \
     (SELECT count(*) FROM leasehold_lock) WHERE $1";

/// Less room on the disk than this is worth a warning, in bytes.
const LITTLE_ROOM: u64 = 64 * 1024 * 1024;

/// Looks at the file and at what it lies on.
pub(crate) async fn diagnose(shared: &Shared, wake_up: WakeUp) -> Result<Diagnosis> {
    let answer = shared.database.read(LOOK, &[]).await?;
    let row = answer
        .rows
        .first()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "SQLite did not answer"))?;
    let mut diagnosis = Diagnosis::new("SQLite", Some(get::<String>(row, 0)?));
    judge_file(
        &mut diagnosis,
        (&get::<String>(row, 1)?, get(row, 2)?, &get::<String>(row, 3)?),
    );
    diagnosis.ok("leasehold_lock", format!("{} rows", get::<i64>(row, 4)?));
    match shared.database.clock.kind() {
        ExpiryClock::Boot => diagnosis.ok("boot", "leases end by the time since boot, which nobody can step"),
        _ => diagnosis.warning(
            "boot",
            "the system does not name its boot, so leases end by the wall clock: a step of it shortens or lengthens them",
            "let the clock slew rather than step",
        ),
    }
    match wake_up {
        WakeUp::Push => diagnosis.ok("push", "waiters are woken through sockets beside the file"),
        _ => diagnosis.note(
            "push",
            "there is no socket beside the file, so waiters ask again and again, which costs time and power: see to it that \
             the folder <file>-wake can be made, with a path of less than 70 bytes",
        ),
    }
    let path = shared.database.path().to_owned();
    tokio::task::spawn_blocking(move || {
        judge_place(&mut diagnosis, &path);
        diagnosis
    })
    .await
    .map_err(|error| Error::new(ErrorKind::Internal, "the file could not be looked at").with_source(error))
}

fn judge_file(diagnosis: &mut Diagnosis, (journal, synchronous, check): (&str, i64, &str)) {
    match journal {
        "wal" => diagnosis.ok(
            "journal_mode",
            "wal: readers and the writer do not wait for each other",
        ),
        other => diagnosis.error(
            "journal_mode",
            format!("{other}: somebody has switched the file while it is in use"),
            "end what else uses the file, and start again: the driver sets it to wal",
        ),
    }
    match synchronous {
        0 => diagnosis.warning(
            "synchronous",
            "off: a crash of the machine can damage the file",
            "leave the URL's option synchronous at normal, or set it to full",
        ),
        1 => diagnosis.ok(
            "synchronous",
            "normal: a crash of the machine may forget the last grants, and ends every lease anyway",
        ),
        _ => diagnosis.ok("synchronous", "full: every grant reaches the disk"),
    }
    match check {
        "ok" => diagnosis.ok("quick_check", "the file is sound"),
        damage => diagnosis.error(
            "quick_check",
            format!("the file is damaged: {damage}"),
            "stop what uses it, and remove it with its -wal and -shm: it is made again, and tokens go on growing",
        ),
    }
}

/// The rights of the file, and the room that the disk has.
fn judge_place(diagnosis: &mut Diagnosis, path: &Path) {
    #[cfg(unix)]
    if let Ok(found) = fs::metadata(path) {
        judge_mode(diagnosis, std::os::unix::fs::MetadataExt::mode(&found) & 0o777);
    }
    #[cfg(not(unix))]
    let _ = fs::metadata(path);
    judge_disk(diagnosis, path);
}

#[cfg(unix)]
fn judge_mode(diagnosis: &mut Diagnosis, mode: u32) {
    let found = format!("{mode:03o}");
    if mode & 0o006 != 0 {
        diagnosis.warning(
            "mode",
            format!("{found}: every user of this machine can see the locks, or take them away"),
            "chmod o-rw the file, and give those who share it a group",
        );
    } else if mode & 0o060 != 0 {
        diagnosis.ok("mode", format!("{found}: the file's group shares the locks"));
    } else {
        diagnosis.ok("mode", format!("{found}: the locks are its owner's alone"));
    }
}

#[cfg(target_os = "linux")]
fn judge_disk(diagnosis: &mut Diagnosis, path: &Path) {
    diagnosis.ok("file system", "local, as far as its type tells");
    let Ok(found) = rustix::fs::statvfs(path) else {
        return;
    };
    let room = found.f_bavail.saturating_mul(found.f_frsize);
    let megabytes = room / (1024 * 1024);
    if room < LITTLE_ROOM {
        diagnosis.warning(
            "disk",
            format!("{megabytes} MiB are left: on a full disk no lock is granted, renewed or released"),
            "make room",
        );
    } else {
        diagnosis.ok("disk", format!("{megabytes} MiB are left"));
    }
}

#[cfg(not(target_os = "linux"))]
fn judge_disk(diagnosis: &mut Diagnosis, _path: &Path) {
    diagnosis.note(
        "file system",
        "this system does not tell whether the file is on a network: there, SQLite cannot share it safely",
    );
}

#[cfg(test)]
mod tests {
    use lockcore::Severity;

    use super::*;

    fn severity(judge: impl FnOnce(&mut Diagnosis)) -> Severity {
        let mut diagnosis = Diagnosis::new("SQLite", None::<String>);
        judge(&mut diagnosis);
        diagnosis.severity()
    }

    #[test]
    fn files() {
        for (facts, expected) in [
            (("wal", 1, "ok"), Severity::Ok),
            (("wal", 2, "ok"), Severity::Ok),
            (("wal", 0, "ok"), Severity::Warning),
            (("delete", 1, "ok"), Severity::Error),
            (("wal", 1, "wrong # of entries in index"), Severity::Error),
        ] {
            assert_eq!(
                severity(|diagnosis| judge_file(diagnosis, facts)),
                expected,
                "{facts:?}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn modes() {
        for (mode, expected) in [
            (0o600, Severity::Ok),
            (0o660, Severity::Ok),
            (0o666, Severity::Warning),
            (0o644, Severity::Warning),
        ] {
            assert_eq!(
                severity(|diagnosis| judge_mode(diagnosis, mode)),
                expected,
                "{mode:o}"
            );
        }
    }
}

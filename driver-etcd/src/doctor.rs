//! What is risky about a cluster, for `leasehold doctor`.

use lockcore::{Diagnosis, Error, ErrorKind, Result};

use crate::connection::Link;

/// Older servers may confirm a lease by a leader that was deposed.
const CHECKS_LEADERSHIP: [(u32, u32, u32); 2] = [(3, 4, 29), (3, 5, 12)];

/// Looks at the member that is used now, and asks it for the others. `login` tells whether we had to log in, where that is
/// known.
pub(crate) async fn diagnose(link: &Link, login: Option<bool>) -> Result<Diagnosis> {
    let (mut maintenance, mut cluster) = (link.client().maintenance_client(), link.client().cluster_client());
    let status = allowed(link.call(maintenance.status()).await.map_err(Error::from))?;
    let members = allowed(link.call(cluster.member_list()).await.map_err(Error::from))?;
    let version = status.as_ref().map(|status| status.version().to_owned());
    let mut diagnosis = Diagnosis::new("etcd", version);
    match &status {
        None => diagnosis.note("status", "the user may not ask for the server's status"),
        Some(status) => judge_member(
            &mut diagnosis,
            &Member {
                version: status.version(),
                leader: status.leader() != 0,
                learner: status.is_learner(),
                troubles: status.errors(),
                size: status.db_size(),
            },
        ),
    }
    match &members {
        None => diagnosis.note("members", "the user may not ask for the members"),
        Some(members) => {
            let voters = members.members().iter().filter(|member| !member.is_learner());
            judge_members(&mut diagnosis, voters.count());
        }
    }
    if login == Some(false) {
        diagnosis.note(
            "auth",
            "nobody has to log in: whoever reaches the members can take locks away from their holders; see `etcdctl auth \
             enable` and the roles in the driver's documentation",
        );
    }
    Ok(diagnosis)
}

/// `None` for what the user may not ask.
fn allowed<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Err(error) if error.kind() == ErrorKind::Denied => Ok(None),
        answer => answer.map(Some),
    }
}

/// What a member says of itself.
struct Member<'a> {
    version: &'a str,
    leader: bool,
    learner: bool,
    troubles: &'a [String],
    size: i64,
}

fn judge_member(diagnosis: &mut Diagnosis, member: &Member<'_>) {
    match checks_leadership(member.version) {
        Some(true) => diagnosis.ok(
            "version",
            "leases are confirmed by the leader only after it has checked that it still is",
        ),
        Some(false) => diagnosis.warning(
            "version",
            "a leader that was deposed may confirm leases for a while; locks count on a second less than the server says",
            "use 3.4.29, 3.5.12 or newer",
        ),
        None => diagnosis.note("version", "not a version that this driver can read"),
    }
    if member.leader {
        diagnosis.ok("leader", "there is one");
    } else {
        diagnosis.error(
            "leader",
            "the member has no leader: no lock can be taken",
            "see to it that a majority of the members runs",
        );
    }
    if member.learner {
        diagnosis.warning(
            "learner",
            "the member is a learner and answers few requests",
            "connect to a voting member",
        );
    }
    if member.troubles.is_empty() {
        diagnosis.ok("alarm", "none");
    }
    for trouble in member.troubles {
        diagnosis.error(
            "alarm",
            format!("{}: with NOSPACE no lock can be taken", trouble.escape_debug()),
            "see `etcdctl alarm list`; make room with `etcdctl compact` and `etcdctl defrag`, then `etcdctl alarm disarm`",
        );
    }
    diagnosis.ok("db_size", format!("{} KiB", member.size / 1024));
}

fn judge_members(diagnosis: &mut Diagnosis, voters: usize) {
    const SUBJECT: &str = "members";
    match voters {
        0 | 1 => diagnosis.note(SUBJECT, "one: while it is down there are no locks"),
        2 => diagnosis.warning(
            SUBJECT,
            "two: when either is down there are no locks, so this is worse than one",
            "add a third with `etcdctl member add`",
        ),
        _ => diagnosis.ok(
            SUBJECT,
            format!("{voters} vote: {} may be down at a time", (voters - 1) / 2),
        ),
    }
}

/// `None` for what is no version.
fn checks_leadership(version: &str) -> Option<bool> {
    let mut parts = version.split(['.', '-']).map(str::parse::<u32>);
    let version = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    let of_the_line = CHECKS_LEADERSHIP
        .iter()
        .find(|(major, minor, _)| (version.0, version.1) == (*major, *minor));
    Some(match of_the_line {
        Some(fixed) => version >= *fixed,
        None => version >= (3, 6, 0),
    })
}

#[cfg(test)]
mod tests {
    use lockcore::Severity::{self, Error, Note, Ok, Warning};

    use super::*;

    fn severity(judge: impl FnOnce(&mut Diagnosis)) -> Severity {
        let mut diagnosis = Diagnosis::new("etcd", None::<String>);
        judge(&mut diagnosis);
        diagnosis.severity()
    }

    const SOUND: Member<'_> = Member {
        version: "3.5.21",
        leader: true,
        learner: false,
        troubles: &[],
        size: 20_480,
    };

    #[test]
    fn members() {
        let troubles = ["memberID:1 alarm:NOSPACE ".to_owned()];
        for (member, expected) in [
            (SOUND, Ok),
            (
                Member {
                    version: "3.4.23",
                    ..SOUND
                },
                Warning,
            ),
            (
                Member {
                    version: "next",
                    ..SOUND
                },
                Note,
            ),
            (
                Member {
                    leader: false,
                    ..SOUND
                },
                Error,
            ),
            (
                Member {
                    learner: true,
                    ..SOUND
                },
                Warning,
            ),
            (
                Member {
                    troubles: &troubles,
                    ..SOUND
                },
                Error,
            ),
        ] {
            let found = severity(|diagnosis| judge_member(diagnosis, &member));
            assert_eq!(found, expected, "{}", member.version);
        }
        for (voters, expected) in [(1, Note), (2, Warning), (3, Ok), (5, Ok)] {
            assert_eq!(severity(|diagnosis| judge_members(diagnosis, voters)), expected);
        }
    }

    #[test]
    fn which_versions_check() {
        for (version, expected) in [
            ("3.4.23", Some(false)),
            ("3.4.29", Some(true)),
            ("3.5.11", Some(false)),
            ("3.5.16", Some(true)),
            ("3.6.0-rc.1", Some(true)),
            ("3.3.25", Some(false)),
            ("none", None),
        ] {
            assert_eq!(checks_leadership(version), expected, "{version}");
        }
    }
}

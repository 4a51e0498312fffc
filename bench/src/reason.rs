//! Why somebody does not take part.

use leasehold_measure::{Case, Contender, Scenario};

/// More connections than a server is asked to have.
const CONNECTIONS: usize = 500;

/// What a contender cannot do, or what would tell nothing.
pub(crate) fn to_leave_out(contender: &dyn Contender, case: &Case) -> Option<String> {
    let (name, offers) = (contender.name(), contender.offers());
    let raw = name.starts_with("raw");
    let by_session = matches!(contender.backend(), "mysql" | "mariadb" | "postgres")
        && (name.ends_with("session") || name == "distributed-lock");
    let reason = match case.scenario {
        Scenario::Held if !offers.renewal => "it does not renew",
        Scenario::Held if by_session && case.names >= CONNECTIONS => {
            "it takes a connection for each held lock"
        }
        Scenario::Held if contender.backend() == "sqlite" && case.names > 10_000 => {
            "a file is for the processes of one machine"
        }
        Scenario::Held if foreign(name) => "its process is not ours to look into",
        _ if name == "rslock-using" && case.scenario != Scenario::Held => {
            "it is rslock's way to renew; see rslock"
        }
        Scenario::Recovery if name == "raw-fifo" || raw && !by_session && offers.renewal => {
            "it does not care for who dies"
        }
        Scenario::Recovery if name == "zookeeper-client" || name == "lock-client-shared" || foreign(name) => {
            "its session has a timeout of its own"
        }
        Scenario::Local | Scenario::Popular if name == "lock-client-shared" => {
            "a lease that has the lock gets it again, so that tasks which share it are not kept apart"
        }
        Scenario::Contended | Scenario::Growth | Scenario::Local | Scenario::Popular if name == "raw" => {
            "it asks again and again; see raw-fifo"
        }
        _ => return None,
    };
    Some(reason.to_owned())
}

/// A program in another language, in a process of its own.
fn foreign(name: &str) -> bool {
    matches!(name, "redis-py" | "python-redis-lock" | "kazoo" | "curator")
}

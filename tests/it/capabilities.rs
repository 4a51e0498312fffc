//! The tables of README.md and docs/backends.md say what the drivers declare. `LEASEHOLD_BLESS=1` writes them anew.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use leasehold::{Capabilities, MAX_NAME_BYTES, etcd, memory, mysql, postgres, redis, sqlite, zk};

/// A driver, or a mode of one that can do something else.
struct Row {
    name: &'static str,
    urls: &'static str,
    /// Empty for another mode of the row before.
    feature: &'static str,
    capabilities: Capabilities,
}

/// The one list of them.
const ROWS: &[Row] = &[
    Row {
        name: "Redis, Valkey",
        urls: "`redis:`, `rediss:`, `redis+unix:`",
        feature: "`redis`",
        capabilities: redis::CAPABILITIES,
    },
    Row {
        name: "PostgreSQL",
        urls: "`postgres:`, `postgresql:`",
        feature: "`postgres`",
        capabilities: postgres::CAPABILITIES,
    },
    Row {
        name: "PostgreSQL, `mode=session`",
        urls: "`postgres:`",
        feature: "",
        capabilities: postgres::SESSION_CAPABILITIES,
    },
    Row {
        name: "MySQL, MariaDB",
        urls: "`mysql:`, `mysqls:`, `mariadb:`",
        feature: "`mysql`",
        capabilities: mysql::CAPABILITIES,
    },
    Row {
        name: "MySQL, MariaDB, `mode=session`",
        urls: "`mysql:`",
        feature: "",
        capabilities: mysql::SESSION_CAPABILITIES,
    },
    Row {
        name: "etcd",
        urls: "`etcd:`, `etcds:`",
        feature: "`etcd`",
        capabilities: etcd::CAPABILITIES,
    },
    Row {
        name: "ZooKeeper",
        urls: "`zk:`, `zks:`",
        feature: "`zk`",
        capabilities: zk::CAPABILITIES,
    },
    Row {
        name: "SQLite",
        urls: "`sqlite:`",
        feature: "`sqlite`",
        capabilities: sqlite::CAPABILITIES,
    },
    Row {
        name: "memory",
        urls: "`memory:`",
        feature: "always there",
        capabilities: memory::CAPABILITIES,
    },
];

type Column = (&'static str, fn(&Row) -> String);

const SHORT: &[Column] = &[
    ("backend", name),
    ("URL", |row| row.urls.into()),
    ("feature", |row| row.feature.into()),
    ("leases end by", |row| row.capabilities.expiry_clock.to_string()),
    ("tokens from", |row| row.capabilities.fencing.to_string()),
    ("waiters", waiters),
    ("when a server dies", |row| row.capabilities.failover.to_string()),
];

const TIME: &[Column] = &[
    ("backend", name),
    ("shortest TTL", |row| span(row.capabilities.min_ttl)),
    ("longest, then renewed", |row| span(row.capabilities.max_ttl)),
    ("in steps of", |row| span(row.capabilities.ttl_grain)),
    ("a lease ends by", |row| row.capabilities.expiry_clock.to_string()),
    ("late by at most", |row| span(row.capabilities.expiry_epsilon)),
    ("a lock lives by", |row| match row.capabilities.sessions {
        true => "a session".into(),
        false => "a lease of its own".into(),
    }),
    ("renewed at once", |row| row.capabilities.renew_batch.to_string()),
];

const SERVICE: &[Column] = &[
    ("backend", name),
    ("tokens from", |row| row.capabilities.fencing.to_string()),
    ("waiters", waiters),
    ("when a server dies", |row| row.capabilities.failover.to_string()),
    ("excludes", |row| match row.capabilities.cross_process {
        true => "other processes".into(),
        false => "this process".into(),
    }),
    ("kinds", |row| match row.capabilities.weighted {
        true => "mutex, readers and writers, semaphore".into(),
        false => "mutex".into(),
    }),
    ("`status`", |row| yes(row.capabilities.inspect)),
    ("`list`", |row| yes(row.capabilities.list)),
    ("`release --force`", |row| yes(row.capabilities.force_release)),
    ("names, in bytes", |_| format!("1 to {MAX_NAME_BYTES}")),
];

fn name(row: &Row) -> String {
    row.name.into()
}

fn waiters(row: &Row) -> String {
    let order = if row.capabilities.fifo { "FIFO" } else { "no order" };
    format!("{order}, {}", row.capabilities.wake_up)
}

fn yes(has: bool) -> String {
    if has { "yes" } else { "no" }.into()
}

/// As a URL's options take it, and people read it.
fn span(duration: Duration) -> String {
    match (duration.as_nanos(), duration.as_secs()) {
        (1, _) => "1 ns".into(),
        (_, secs) if secs > 0 && secs.is_multiple_of(3600) => format!("{} h", secs / 3600),
        (_, secs) if secs > 0 && duration.subsec_nanos() == 0 => format!("{secs} s"),
        _ => format!("{} ms", duration.as_millis()),
    }
}

fn table(rows: impl Fn(&Row) -> bool, columns: &[Column]) -> String {
    let mut table = String::new();
    for (head, _) in columns {
        write!(table, "| {head} ").unwrap();
    }
    table.push_str("|\n");
    table.push_str(&"|---".repeat(columns.len()));
    table.push_str("|\n");
    for row in ROWS.iter().filter(|row| rows(row)) {
        for (_, cell) in columns {
            write!(table, "| {} ", cell(row)).unwrap();
        }
        table.push_str("|\n");
    }
    table
}

/// `text` with `table` between the marks of `section`.
fn with_table(text: &str, section: &str, table: &str) -> String {
    let (from, to) = (
        format!("<!-- table {section} -->\n"),
        format!("<!-- end of table {section} -->"),
    );
    let (before, rest) = text
        .split_once(&from)
        .unwrap_or_else(|| panic!("no mark {from:?}"));
    let (_, after) = rest.split_once(&to).unwrap_or_else(|| panic!("no mark {to:?}"));
    format!("{before}{from}{table}{to}{after}")
}

fn compare(file: &str, rows: fn(&Row) -> bool, tables: &[(&str, &[Column])]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let found = std::fs::read_to_string(&path).unwrap();
    let wanted = tables.iter().fold(found.clone(), |text, (section, columns)| {
        with_table(&text, section, &table(rows, columns))
    });
    if std::env::var_os("LEASEHOLD_BLESS").is_some() {
        std::fs::write(&path, wanted).unwrap();
    } else {
        assert!(
            found == wanted,
            "the tables of {file} are not what the drivers declare: run this test with LEASEHOLD_BLESS=1"
        );
    }
}

#[test]
fn the_readme_says_what_the_drivers_declare() {
    compare("README.md", |row| !row.feature.is_empty(), &[("backends", SHORT)]);
}

#[test]
fn the_documentation_says_what_the_drivers_declare() {
    compare(
        "docs/backends.md",
        |_| true,
        &[("time", TIME), ("service", SERVICE)],
    );
}

#[test]
fn every_row_can_be_connected_to() {
    for row in ROWS {
        for scheme in row.urls.split(", ").map(|url| url.trim_matches('`')) {
            let url = format!("{scheme}//h/x");
            assert!(leasehold::Connector::new(&url).is_ok(), "{url}");
        }
    }
}

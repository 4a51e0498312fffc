//! Targets that compare one number of Leasehold with the same number of somebody else.

use leasehold_measure::Figure;

use super::Bound::{self, AtLeast, AtMost};

/// `ours / other` has to keep to the bound.
#[derive(Debug)]
pub(super) struct Ratio {
    pub(super) case: &'static str,
    pub(super) backends: &'static [&'static str],
    pub(super) figure: Figure,
    pub(super) ours: &'static str,
    pub(super) other: &'static str,
    pub(super) bound: Bound,
}

const REDIS: &[&str] = &["redis", "valkey"];
const ETCD: &[&str] = &["etcd"];
const ZK: &[&str] = &["zk"];
const MYSQL: &[&str] = &["mysql", "mariadb"];
const POSTGRES: &[&str] = &["postgres"];
const SQL: &[&str] = &["mysql", "mariadb", "postgres"];
const TABLES: &[&str] = &["mysql", "mariadb", "postgres", "sqlite"];
const QUEUES: &[&str] = &["redis", "valkey", "etcd", "zk"];

const fn ratio(
    case: &'static str,
    backends: &'static [&'static str],
    figure: Figure,
    (ours, other): (&'static str, &'static str),
    bound: Bound,
) -> Ratio {
    Ratio {
        case,
        backends,
        figure,
        ours,
        other,
        bound,
    }
}

const LEASE: &str = "leasehold";
const SESSION: &str = "leasehold-session";

const PAIR: Figure = Figure::PairP50;
const RATE: Figure = Figure::PerSecond;
const HAND_OFF: Figure = Figure::HandOffP50;
const HAND_OFFS: Figure = Figure::HandOffsPerSecond;
const LOAD: Figure = Figure::ClientLoad;

const LATENCY: &str = "latency";
const MANY: &str = "throughput-64";
const MORE: &str = "throughput-512";
const OPEN: &str = "contended-16-0ms";
const TWO: &str = "growth-2-10ms";
const FEW: &str = "growth-16-10ms";
const CROWD: &str = "growth-128-10ms";

pub(super) const RATIOS: &[Ratio] = &[
    // The raw client with the same guarantees, then the fastest library that offers less.
    ratio(LATENCY, QUEUES, PAIR, (LEASE, "raw-fifo"), AtMost(1.1)),
    ratio(LATENCY, TABLES, PAIR, (LEASE, "raw-table"), AtMost(1.1)),
    ratio(LATENCY, SQL, PAIR, (SESSION, "raw-session"), AtMost(1.1)),
    ratio(LATENCY, REDIS, PAIR, (LEASE, "rslock"), AtMost(1.05)),
    ratio(LATENCY, ETCD, PAIR, (LEASE, "lock-client"), AtMost(0.5)),
    ratio(LATENCY, ZK, PAIR, (LEASE, "zookeeper-client"), AtMost(0.85)),
    ratio(LATENCY, ZK, PAIR, (LEASE, "curator"), AtMost(0.85)),
    ratio(LATENCY, MYSQL, PAIR, (SESSION, "distributed-lock"), AtMost(1.0)),
    ratio(
        LATENCY,
        POSTGRES,
        PAIR,
        (SESSION, "distributed-lock"),
        AtMost(0.6),
    ),
    // Throughput.
    ratio(MANY, REDIS, RATE, (LEASE, "raw-fifo"), AtLeast(0.9)),
    ratio(MORE, REDIS, RATE, (LEASE, "raw-fifo"), AtLeast(0.9)),
    ratio(MANY, REDIS, RATE, (LEASE, "rslock"), AtLeast(1.0)),
    ratio(MORE, REDIS, RATE, (LEASE, "rslock"), AtLeast(1.0)),
    ratio(MANY, REDIS, RATE, (LEASE, "distributed-lock"), AtLeast(1.0)),
    ratio(MORE, REDIS, RATE, (LEASE, "distributed-lock"), AtLeast(1.0)),
    ratio(MANY, ETCD, RATE, (LEASE, "raw"), AtLeast(0.95)),
    ratio(MORE, ETCD, RATE, (LEASE, "raw"), AtLeast(0.95)),
    ratio(MANY, ZK, RATE, (LEASE, "raw"), AtLeast(0.9)),
    ratio(MORE, ZK, RATE, (LEASE, "raw"), AtLeast(0.9)),
    ratio(MANY, ZK, RATE, (LEASE, "zookeeper-client"), AtLeast(2.0)),
    ratio(MORE, ZK, RATE, (LEASE, "zookeeper-client"), AtLeast(2.0)),
    ratio(MANY, ZK, RATE, (LEASE, "curator"), AtLeast(2.0)),
    ratio(MANY, SQL, RATE, (LEASE, "distributed-lock"), AtLeast(1.0)),
    ratio(MORE, SQL, RATE, (LEASE, "distributed-lock"), AtLeast(1.0)),
    ratio(MANY, SQL, RATE, (SESSION, "distributed-lock"), AtLeast(1.0)),
    ratio(MORE, SQL, RATE, (SESSION, "distributed-lock"), AtLeast(1.0)),
    // Hand-offs without a hold.
    ratio(OPEN, ETCD, HAND_OFFS, (LEASE, "lock-client"), AtLeast(8.0)),
    ratio(OPEN, REDIS, HAND_OFFS, (LEASE, "rslock"), AtLeast(10.0)),
    ratio(OPEN, REDIS, HAND_OFFS, (LEASE, "distributed-lock"), AtLeast(10.0)),
    ratio(OPEN, REDIS, HAND_OFFS, (LEASE, "redis-py"), AtLeast(10.0)),
    ratio(
        OPEN,
        REDIS,
        HAND_OFFS,
        (LEASE, "python-redis-lock"),
        AtLeast(10.0),
    ),
    // Hand-offs with a hold, in which every waiter sleeps.
    ratio(TWO, ETCD, HAND_OFF, (LEASE, "lock-client"), AtMost(0.02)),
    ratio(TWO, ETCD, HAND_OFF, (LEASE, "raw-fifo"), AtMost(1.3)),
    ratio(FEW, ETCD, HAND_OFF, (LEASE, "raw-fifo"), AtMost(1.3)),
    ratio(CROWD, ETCD, HAND_OFF, (LEASE, "raw-fifo"), AtMost(1.3)),
    ratio(TWO, ZK, HAND_OFF, (LEASE, "zookeeper-client"), AtMost(1.0)),
    ratio(FEW, ZK, HAND_OFF, (LEASE, "zookeeper-client"), AtMost(1.0)),
    ratio(CROWD, ZK, HAND_OFF, (LEASE, "zookeeper-client"), AtMost(1.0)),
    ratio(TWO, SQL, HAND_OFF, (LEASE, "raw-session"), AtMost(1.3)),
    ratio(FEW, SQL, HAND_OFF, (LEASE, "raw-session"), AtMost(1.3)),
    ratio(CROWD, SQL, HAND_OFF, (LEASE, "raw-session"), AtMost(1.3)),
    ratio(TWO, SQL, HAND_OFF, (SESSION, "raw-session"), AtMost(1.3)),
    ratio(FEW, SQL, HAND_OFF, (SESSION, "raw-session"), AtMost(1.3)),
    ratio(CROWD, SQL, HAND_OFF, (SESSION, "raw-session"), AtMost(1.3)),
    // Upkeep.
    ratio("held-10000", REDIS, LOAD, (LEASE, "rslock-using"), AtMost(0.333)),
    ratio("held-100000", REDIS, LOAD, (LEASE, "rslock-using"), AtMost(0.333)),
];

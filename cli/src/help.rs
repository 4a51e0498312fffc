//! The longer parts of `--help` and of the manual pages. Lines of at most 76 characters: they are not filled again.

pub(crate) const PROGRAM: &str = "\
Examples:
  leasehold run nightly-report -- ./report.sh
  leasehold run --wait 0 cron/backup -- ./backup.sh
  export LEASEHOLD_URL=redis://:secret@db:6379
  leasehold run --wait 10m migrate -- ./migrate up
  leasehold status nightly-report
  leasehold list --json cron/ | jq '.[].name'
  leasehold doctor redis://db:6379
  leasehold bench redis://db:6379 etcd://db:2379 --html report.html

Backends:
  sqlite:/path/locks.db          the processes of one machine; the default,
                                 in the user's state folder
  redis://user:password@host/0   Redis and Valkey; rediss:// with TLS,
                                 redis+unix:///path for a socket
  postgres://user:password@host/database    PostgreSQL
  mysql://user:password@host/database       MySQL; also mariadb://
  etcd://h1:2379,h2:2379         etcd; etcds:// with TLS
  zk://h1:2181,h2:2181/path      ZooKeeper; zks:// with TLS
  memory:                        this process alone, for a try
  Options ride in the query, such as ?namespace=app&ttl=1m. A password is
  safer in LEASEHOLD_URL than on the command line, which others can see.

Exit status:
  `leasehold run` ends with CMD's own: its code, or 128 + N when signal N
  ended it. Otherwise:
    1  `leasehold doctor` has found a risk, or `leasehold bench` a lock that
       is none
   64  the command line, a name, an option or the URL is wrong
   69  the backend cannot be reached or does not answer
   70  a bug, here or in the backend
   71  the operating system refused something
   74  the output could not be written
   75  the lock was busy to the end of the wait; CMD was not run
   77  the backend refused the login or the operation
   78  there is no place for the default's file: give a URL
   79  the lock was lost while CMD ran
  126  CMD cannot be run
  127  CMD was not found
  128 + N when signal N ended the wait for the lock

Environment:
  LEASEHOLD_URL   the backend, when there is no --url
  LEASEHOLD_LOG   what to log to stderr, such as debug or lockcore=trace
  NO_COLOR        no colours, also on a terminal";

pub(crate) const RUN: &str = "\
Examples:
  leasehold run nightly-report -- ./report.sh
  leasehold run --wait 0 cron/backup -- ./backup.sh
  leasehold run --ttl 10s --label \"$(id -un)\" deploy/web -- ./deploy.sh
  leasehold run demo -- sh -c 'echo my token is $LEASEHOLD_TOKEN'

CMD finds in its environment:
  LEASEHOLD_NAME   the lock's name
  LEASEHOLD_TOKEN  the fencing token, larger than that of every earlier
                   holder: let the store that CMD writes to refuse a smaller
                   one than it has seen
  LEASEHOLD_OWNER  who holds the lock, as `leasehold status` shows it

When the lock is lost:
  That is when the backend is silent until the lease is nearly over, or says
  that the lock is somebody else's. In the first case CMD gets TERM as long
  before the end of the lease as --grace says (at most a third of the TTL),
  and KILL before anybody else can have the lock; in the second it gets TERM
  at once, and KILL after the grace period. The exit status is 79. It stays
  CMD's with --on-lost ignore, and stderr tells of the loss.
  A backend that answers again in time costs nothing.

Signals:
  INT, TERM, HUP, QUIT, USR1 and USR2 are passed on to CMD, and the lock is
  freed when CMD has ended. During the wait for the lock they end the wait,
  and the place in the queue is given up. HUP stays ignored under nohup.

  CMD has a process group of its own, and all of it gets the signals. When
  the program is in the foreground of the terminal that is its stdin, CMD
  stays in its group, to be able to read the terminal, and gets the signals
  alone. Ctrl-C and Ctrl-\\ then reach CMD from the terminal, so INT and QUIT
  are not passed on: to stop it from elsewhere, use TERM.

  Stopped by TSTP (Ctrl-Z), the program stops CMD as well, and CMD goes on
  with it if the lock is still held then. Stopped or killed by STOP or KILL,
  it cannot; a second process, `leasehold __guard`, then kills CMD and its
  group: with the program, or at the end of the lease.";

pub(crate) const STATUS: &str = "\
Examples:
  leasehold status nightly-report
  leasehold status --json nightly-report | jq '.[].holders[].owner.host'

--json prints a list with one entry for each kind of lock of this name:
name, kind, holders (owner: host, pid, label; token, remaining_ms, since,
weight) and waiters. The exit status is 0 whether it is held or free.";

pub(crate) const LIST: &str = "\
Examples:
  leasehold list
  leasehold list cron/
  leasehold list --json | jq '.[] | select(.waiters > 0) | .name'

--json prints a list with entries like those of `leasehold status --json`.";

pub(crate) const RELEASE: &str = "\
Example:
  leasehold release --force nightly-report

The exit status is 0 whether somebody held it or not. --json prints
{\"name\": .., \"released\": true or false}.";

pub(crate) const DOCTOR: &str = "\
Examples:
  leasehold doctor
  leasehold doctor redis://db:6379
  leasehold doctor --json | jq '.findings[] | select(.remedy)'

What it does:
  It connects, measures the round trip, compares the server's clock with
  ours, looks at the settings that locks depend on, and says for each that
  is not well what to do. Then it takes, renews and frees a lock of its own,
  leasehold-doctor/ and random digits, hands it over to a second connection,
  and tells how long each of it took.

Findings:
  ok       as it should be
  note     good to know, or it could not be looked at
  warning  locks work, and under some failure or load they will not
  error    locks do not work, or can be lost without any failure

Exit status:
    0  nothing is worse than a note
    1  there are warnings or errors
   64  the URL is wrong
   69  the backend cannot be reached or does not answer
   77  the backend refused the login or the operation

--json prints backend, server, version, verdict (the worst finding),
round_trip_us, clock_ahead_us (of the server's clock), timings_us,
capabilities, and findings (severity, subject, found, remedy). It prints
them also with the exit status 64, 69 or 77, as far as they are known; what
is not known is null.";

pub(crate) const BENCH: &str = "\
Examples:
  leasehold bench
  leasehold bench redis://db:6379 etcd://db:2379 --html report.html
  leasehold bench 'postgres://db/app' 'postgres://db/app?mode=session'
  leasehold bench --scenario latency,contended --seconds 3 --rounds 5
  leasehold bench --json | jq '.sections[] | {id, results}'

What it does:
  Each case is measured on all URLs in turn, --rounds times, so that what
  else the machine does hits all of them; the medians are printed. With one
  URL it takes some 40 seconds. The names of all locks start with
  leasehold-bench/ and random digits; all are free at the end. The last
  token of each, of some 2,500 names, a server forgets by itself as it does
  for every lock: Redis after a day. It is a load on the server: at most 64
  requests at a time, 16 clients with their connections, and 1,000 held
  locks.

  acq/s        acquisitions in a second
  pair         an acquire and its release together
  hand-off     from the start of a release until the next client has the
               lock
  us/acq       time on a processor for each acquisition, in microseconds
  bytes/lock   memory of the client's process for each held lock
  p50, p99     the median, and what 99 of 100 are below

  Client and server share the machine when the server is local: compare
  figures of one run with each other.

Signals:
  INT and TERM end it with what was measured so far; the second one at once.

Exit status:
    0  all was measured
    1  a lock was granted to two at a time, lost while it was held, or given
       a token that was not larger: see the end of the output
   64  the command line or a URL is wrong
   69  a backend cannot be reached, or a measurement failed
   77  a backend refused the login or the operation
  128 + N when signal N ended it

--json prints machine, versions, plan, entrants, sections (for each case
and URL the rounds, medians and ratios to the first URL) and alarms. Times
are in the unit that the figure's name in the table has. Neither the output
nor the page has a password.";

pub(crate) const COMPLETIONS: &str = "\
Example:
  leasehold completions bash \\
    > ~/.local/share/bash-completion/completions/leasehold";

pub(crate) const MAN: &str = "\
Example:
  leasehold man run | man -l -";

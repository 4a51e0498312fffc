//! Logging of the library, to stderr only.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::args::Common;
use crate::exit::{Code, Failure};

/// Starts logging as `LEASEHOLD_LOG` says, or else `-v` and `--quiet`.
pub(crate) fn start(common: &Common) -> Result<(), Failure> {
    let asked = std::env::var("LEASEHOLD_LOG").unwrap_or_default();
    let asked = asked.trim();
    let filter = match (asked, common.quiet, common.verbose) {
        ("", true, _) => "off",
        // What a warning of the library says at the loss of a lock is said by `run` itself. What a client library warns
        // of, such as a connection that is tried again, is no news.
        ("", false, 0) => "error,leasehold=warn,lockcore=warn,lockcore::upkeep=error",
        ("", false, 1) => "info",
        ("", false, 2) => "debug",
        ("", false, _) => "trace",
        (asked, ..) => asked,
    };
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::new(
            Code::Usage,
            format!("LEASEHOLD_LOG is no log filter such as debug: {error}"),
        )
    })?;
    let colours =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colours)
        .with_target(common.verbose > 1);
    if asked.is_empty() && common.verbose == 0 {
        // A warning among our own lines.
        log.without_time().init();
    } else {
        log.init();
    }
    Ok(())
}

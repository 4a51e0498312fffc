//! `status`, `list` and `release`.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use leasehold::{Env, Holder, LockManager, LockName, LockStatus};
use serde_json::json;

use crate::args::{self, Common};
use crate::exit::{Code, Failure};
use crate::output::{self, FAINT, STRONG};
use crate::{logging, place};

pub(crate) async fn status(common: &Common, args: &args::Status) -> Result<(), Failure> {
    let name = LockName::new(args.name.as_str())?;
    let locks = connect(common).await?;
    let found = locks.inspect(name.as_str()).await;
    let now = Env::system().wall_clock();
    locks.close().await.ok();
    let found = found?;
    if args.format.json {
        return output::json(&found);
    }
    // The mutex of this name comes first, held or not. It is left out when another kind has something to tell.
    let told = |status: &&LockStatus| status.is_held() || status.waiters > 0;
    let mut shown: Vec<_> = found.iter().filter(told).collect();
    if shown.is_empty() {
        shown.extend(found.first());
    }
    output::print(|out| shown.iter().try_for_each(|status| describe(out, status, now)))
}

pub(crate) async fn list(common: &Common, args: &args::List) -> Result<(), Failure> {
    let locks = connect(common).await?;
    let found = locks.list(&args.prefix).await;
    let now = Env::system().wall_clock();
    locks.close().await.ok();
    let found = found?;
    if args.format.json {
        return output::json(&found);
    }
    if found.is_empty() {
        output::note(match args.prefix.as_str() {
            "" => "no lock is held".to_owned(),
            prefix => format!("no lock is held whose name starts with {prefix:?}"),
        });
        return Ok(());
    }
    output::print(|out| table(out, &found, now))
}

pub(crate) async fn release(common: &Common, args: &args::Release) -> Result<(), Failure> {
    let name = LockName::new(args.name.as_str())?;
    if !args.force {
        return Err(Failure::new(
            Code::Usage,
            format!(
                "this takes the lock {name} away from whoever holds it, see `leasehold status`: say --force if you mean it"
            ),
        ));
    }
    let locks = connect(common).await?;
    let released = locks.force_release(name.as_str()).await;
    locks.close().await.ok();
    let released = released?;
    if args.format.json {
        return output::json(&json!({ "name": name.as_str(), "released": released }));
    }
    output::print(|out| match released {
        true => writeln!(out, "{name}: taken from its holder"),
        false => writeln!(out, "{name}: nobody held it"),
    })
}

async fn connect(common: &Common) -> Result<Arc<dyn LockManager>, Failure> {
    logging::start(common)?;
    let url = place::url(common.url.as_deref())?;
    Ok(leasehold::connect(&url).await?)
}

fn describe(out: &mut dyn Write, status: &LockStatus, now: SystemTime) -> std::io::Result<()> {
    let state = if status.is_held() { "held" } else { "free" };
    writeln!(out, "{STRONG}{}{STRONG:#}: {} {state}", status.name, status.kind)?;
    for holder in &status.holders {
        row(out, "holder", owner(holder))?;
        row(out, "token", holder.token)?;
        if let Some(since) = holder.since {
            let at = humantime::format_rfc3339_seconds(since);
            row(out, "since", format!("{at} ({} ago)", age(since, now)))?;
        }
        if let Some(remaining) = holder.remaining {
            row(
                out,
                "lease",
                format!("{} unless renewed", output::rounded(remaining)),
            )?;
        }
        if holder.weight > 1 {
            row(out, "weight", holder.weight)?;
        }
    }
    row(out, "waiters", status.waiters)
}

fn row(out: &mut dyn Write, label: &str, value: impl std::fmt::Display) -> std::io::Result<()> {
    writeln!(out, "  {FAINT}{label:<8}{FAINT:#} {value}")
}

/// One line for each holder, in columns.
fn table(out: &mut dyn Write, found: &[LockStatus], now: SystemTime) -> std::io::Result<()> {
    let head = ["NAME", "KIND", "HOLDER", "TOKEN", "HELD FOR", "LEASE", "WAITERS"];
    let rows: Vec<[String; 7]> = found
        .iter()
        .flat_map(|status| {
            status.holders.iter().map(move |holder| {
                [
                    status.name.to_string(),
                    status.kind.to_string(),
                    owner(holder),
                    holder.token.to_string(),
                    holder.since.map_or_else(String::new, |since| age(since, now)),
                    holder.remaining.map_or_else(String::new, output::rounded),
                    status.waiters.to_string(),
                ]
            })
        })
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; 7] = std::array::from_fn(width);
    let line = |cells: [&str; 7]| {
        let padded: Vec<_> = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    writeln!(out, "{FAINT}{}{FAINT:#}", line(head))?;
    for row in &rows {
        writeln!(out, "{}", line(row.each_ref().map(String::as_str)))?;
    }
    Ok(())
}

pub(crate) fn owner(holder: &Holder) -> String {
    holder
        .owner
        .as_ref()
        .map_or_else(|| "unknown".to_owned(), ToString::to_string)
}

/// How long ago, in whole seconds; the clocks of two machines may disagree.
fn age(since: SystemTime, now: SystemTime) -> String {
    let age = now.duration_since(since).unwrap_or_default();
    humantime::format_duration(Duration::from_secs(age.as_secs())).to_string()
}

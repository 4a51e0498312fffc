//! The tables.

use std::time::Duration;

use lockcore::{Env, Error, ErrorKind, Result};
use sqlx::mysql::MySqlConnection;
use tokio::sync::Mutex;

use crate::error::{classify, is_in_the_way, is_missing_table, number};
use crate::script::{get, run};

/// What makes the tables of the mode `lease`: for those who give the application no right to do so. It does nothing where
/// they are there already.
pub const MIGRATION: &str = include_str!("sql/create.sql");

/// Which layout this version reads and writes.
const LAYOUT: i64 = 1;

/// Between two tries to make the tables while others make them, and for how long there are more of them.
const MAKE_PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));
const MAKE_LIMIT: Duration = Duration::from_secs(5);

const LOOK: &str = "SELECT layout FROM leasehold_meta WHERE id = 1";

/// Checks the tables, and makes them when they are missing and `create` allows it.
pub(crate) async fn ensure(connection: &mut MySqlConnection, create: bool, env: &Env) -> Result<()> {
    let found = match layout(connection).await {
        Err(error) if is_missing_table(&error) => None,
        found => found.map_err(classify)?,
    };
    let found = match found {
        Some(layout) => layout,
        None if create => {
            make(connection, env).await?;
            layout(connection).await.map_err(classify)?.unwrap_or(LAYOUT)
        }
        None => {
            return Err(Error::new(
                ErrorKind::Invalid,
                missing("the tables are missing, and create=false keeps this driver from making them"),
            ));
        }
    };
    if found == LAYOUT {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!(
            "the tables have layout {found}, this version knows layout {LAYOUT}: use the same version everywhere"
        ),
    ))
}

async fn layout(connection: &mut MySqlConnection) -> sqlx::Result<Option<i64>> {
    let replies = run(connection, LOOK.to_owned()).await?;
    let row = replies.first().and_then(|reply| reply.rows.first());
    Ok(row.and_then(|row| get(row, 0).ok()))
}

/// Every statement may be run twice, so that a deadlock with another maker is no reason to fail.
async fn make(connection: &mut MySqlConnection, env: &Env) -> Result<()> {
    let connection = Mutex::new(connection);
    let attempt = async || run(*connection.lock().await, MIGRATION.to_owned()).await;
    match env.persist(MAKE_LIMIT, MAKE_PAUSE, is_in_the_way, attempt).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let denied = matches!(number(&error), Some(1044 | 1142 | 1227));
            let error = classify(error);
            Err(if denied {
                Error::new(
                    ErrorKind::Denied,
                    missing("the tables are missing, and the user may not make them"),
                )
                .with_source(error)
            } else {
                error
            })
        }
    }
}

fn missing(why: &str) -> String {
    format!("{why}. Have an administrator run, in the database of the URL:\n{MIGRATION}")
}

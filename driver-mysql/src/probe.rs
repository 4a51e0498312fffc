//! Whether waiters can be woken through the server.

use lockcore::Result;

use crate::doorbell::Hung;
use crate::pool::Pool;
use crate::script::{answer, get, text};

/// Clusters in which a client's connection may be on another node than the one that is to wake it.
const CLUSTERS: &str = "SHOW VARIABLES WHERE Variable_name IN \
     ('wsrep_on', 'group_replication_group_name', 'group_replication_single_primary_mode')";

/// Does `SYSDATE` tell the time at which it is evaluated? With the server's option `sysdate-is-now` it does not.
pub(crate) async fn tells_the_time(pool: &Pool) -> Result<bool> {
    let replies = pool
        .run("SELECT SYSDATE(6), SLEEP(0.002), SYSDATE(6)".to_owned())
        .await?;
    let row = answer(&replies)?;
    Ok(text(row, 0)? != text(row, 2)?)
}

/// Is every client of this server on this very node?
pub(crate) async fn may_wake(pool: &Pool) -> Result<bool> {
    let replies = pool.run(CLUSTERS.to_owned()).await?;
    let (mut galera, mut group, mut single) = (false, false, true);
    for row in replies.iter().flat_map(|reply| &reply.rows) {
        let value = text(row, 1)?.unwrap_or_default();
        let on = value.eq_ignore_ascii_case("on") || value == "1";
        match text(row, 0)?.unwrap_or_default().as_str() {
            "wsrep_on" => galera = on,
            "group_replication_group_name" => group = !value.is_empty(),
            _ => single = on,
        }
    }
    Ok(!galera && (!group || single))
}

/// Does the server that the pool talks to know `hung` by its name and number, and may we wake it? Behind a proxy it need
/// not.
pub(crate) async fn wakes(pool: &Pool, hung: &Hung) -> Result<bool> {
    let Ok(replies) = pool
        .try_run(format!("SELECT IS_USED_LOCK('{}')", hung.name))
        .await?
    else {
        return Ok(false);
    };
    let row = replies.first().and_then(|reply| reply.rows.first());
    let id: Option<u64> = row.map(|row| get(row, 0)).transpose()?.flatten();
    if id != Some(hung.id) {
        return Ok(false);
    }
    Ok(pool.try_run(format!("KILL QUERY {}", hung.id)).await?.is_ok())
}

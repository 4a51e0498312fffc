//! What servers count.

use leasehold_measure::{Failure, ServerUse};
use redis::cmd;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::backend::Backend;
use crate::place::Place;

/// Once, on a server of ours.
pub(crate) async fn prepare(place: &Place) -> Result<(), Failure> {
    if place.backend() == Backend::Postgres {
        let mut admin = PgConnection::connect(place.admin_url()).await?;
        let create = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements";
        sqlx::raw_sql(create).execute(&mut admin).await?;
        admin.close().await?;
    }
    Ok(())
}

pub(crate) async fn read(place: &Place, commands: &[&str]) -> Result<ServerUse, Failure> {
    let (requests, writes) = match place.backend() {
        Backend::Redis | Backend::Valkey => redis(place, commands).await?,
        Backend::Etcd => etcd(place).await?,
        Backend::ZooKeeper => zookeeper(place).await?,
        Backend::MySql | Backend::MariaDb => mysql(place).await?,
        Backend::Postgres => postgres(place).await?,
        Backend::Sqlite | Backend::Memory => return Ok(ServerUse::default()),
    };
    Ok(ServerUse {
        requests,
        writes,
        cpu: None,
    })
}

type Counted = (Option<u64>, Option<u64>);

async fn redis(place: &Place, commands: &[&str]) -> Result<Counted, Failure> {
    let client = redis::Client::open(place.admin_url())?;
    let mut admin = client.get_multiplexed_async_connection().await?;
    let stats: String = cmd("INFO").arg("commandstats").query_async(&mut admin).await?;
    let calls = stats.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls: u64 = rest.split(',').next()?.parse().ok()?;
        commands.contains(&name).then_some(calls)
    });
    let persistence: String = cmd("INFO").arg("persistence").query_async(&mut admin).await?;
    // Our servers never save, so that it counts all changes since the start.
    let changes = persistence
        .lines()
        .find_map(|line| line.strip_prefix("rdb_changes_since_last_save:"));
    Ok((
        Some(calls.sum()),
        changes.and_then(|changes| changes.trim().parse().ok()),
    ))
}

async fn etcd(place: &Place) -> Result<Counted, Failure> {
    // Not 1.1, whose chunks cut lines.
    let metrics = ask(place.address(), "GET /metrics HTTP/1.0\r\n\r\n").await?;
    let received = series(&metrics, "grpc_server_msg_received_total", |labels| {
        !labels.contains("Health")
    });
    let proposals = series(&metrics, "etcd_server_proposals_committed_total", |_| true);
    Ok((Some(received), Some(proposals)))
}

/// The sum of all series of one metric whose labels pass.
fn series(metrics: &str, name: &str, labels: impl Fn(&str) -> bool) -> u64 {
    let values = metrics.lines().filter_map(|line| {
        let (series, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
        let ours = series.is_empty() || series.starts_with('{');
        (ours && labels(series)).then(|| value.parse::<f64>().ok())?
    });
    whole(values.sum())
}

fn whole(number: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters are whole and positive"
    )]
    let whole = number as u64;
    whole
}

async fn zookeeper(place: &Place) -> Result<Counted, Failure> {
    let monitor = ask(place.address(), "mntr").await?;
    let received = monitor
        .lines()
        .find_map(|line| line.strip_prefix("zk_packets_received\t"));
    let received = received.and_then(|packets| packets.trim().parse().ok());
    let server = ask(place.address(), "srvr").await?;
    let last = server.lines().find_map(|line| line.strip_prefix("Zxid: 0x"));
    let last = last.and_then(|zxid| u64::from_str_radix(zxid.trim(), 16).ok());
    // The upper half counts leaders.
    Ok((received.map(whole), last.map(|zxid| zxid & 0xffff_ffff)))
}

/// All that is answered until the server closes the connection.
async fn ask(address: &str, words: &str) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(words.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(4 << 20).read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn mysql(place: &Place) -> Result<Counted, Failure> {
    let mut admin = MySqlConnection::connect(place.admin_url()).await?;
    let mut counted = [None, None];
    for (place, name) in counted.iter_mut().zip(["Questions", "Handler_commit"]) {
        let sql = AssertSqlSafe(format!("SHOW GLOBAL STATUS LIKE '{name}'"));
        let row: Option<(Vec<u8>, Vec<u8>)> = sqlx::query_as(sql).fetch_optional(&mut admin).await?;
        *place = row.and_then(|(_, value)| String::from_utf8_lossy(&value).parse().ok());
    }
    admin.close().await?;
    Ok((counted[0], counted[1]))
}

async fn postgres(place: &Place) -> Result<Counted, Failure> {
    let mut admin = PgConnection::connect(place.admin_url()).await?;
    // Statistics of transactions are late by a second; these are not. What sets a connection up is no request of a lock.
    let calls = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements AS s \
         JOIN pg_roles AS r ON r.oid = s.userid WHERE r.rolname = 'leasehold' \
         AND s.query NOT LIKE 'SET %' AND s.query NOT LIKE 'SELECT set_config%'";
    let calls: i64 = sqlx::query_scalar(calls).fetch_one(&mut admin).await?;
    let writes = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    let writes: i64 = sqlx::query_scalar(writes).fetch_one(&mut admin).await?;
    admin.close().await?;
    Ok((u64::try_from(calls).ok(), u64::try_from(writes).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed() {
        let metrics =
            "# HELP a_total x\na_total{m=\"Put\"} 3\na_total{m=\"Health\"} 9\na_total_more 7\na_total 1e2\n";
        assert_eq!(
            series(metrics, "a_total", |labels| !labels.contains("Health")),
            103
        );
    }
}

//! What the server counts.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The server's metrics, as text.
pub(crate) async fn read(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    // Not 1.1, whose chunks cut lines.
    let request = "GET /metrics HTTP/1.0\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    Ok(reply)
}

/// The sum of all series of one metric whose labels pass.
pub(crate) fn sum(metrics: &str, name: &str, labels: impl Fn(&str) -> bool) -> u64 {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (series, value) = rest.rsplit_once(' ')?;
        let ours = series.is_empty() || series.starts_with('{');
        (ours && labels(series)).then(|| value.parse::<f64>().ok())?
    });
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters are whole and positive"
    )]
    let whole = values.sum::<f64>() as u64;
    whole
}

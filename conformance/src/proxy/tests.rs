use std::io::ErrorKind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;

/// Says everything back, and remembers it.
struct Echo {
    address: String,
    heard: Arc<Mutex<Vec<u8>>>,
    open: Arc<AtomicUsize>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let echo = Self {
            address: listener.local_addr().unwrap().to_string(),
            heard: Arc::default(),
            open: Arc::default(),
        };
        let (heard, open) = (Arc::clone(&echo.heard), Arc::clone(&echo.open));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (heard, open) = (Arc::clone(&heard), Arc::clone(&open));
                open.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut buffer = [0; 1024];
                    while let Ok(bytes @ 1..) = stream.read(&mut buffer).await {
                        heard.lock().unwrap().extend(&buffer[..bytes]);
                        if stream.write_all(&buffer[..bytes]).await.is_err() {
                            break;
                        }
                    }
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        echo
    }

    fn heard(&self) -> String {
        String::from_utf8(self.heard.lock().unwrap().clone()).unwrap()
    }

    async fn until_heard(&self, what: &str) {
        eventually(|| self.heard() == what).await;
    }

    async fn until_open(&self, connections: usize) {
        eventually(|| self.open.load(Ordering::SeqCst) == connections).await;
    }
}

async fn eventually(condition: impl Fn() -> bool + Send + Sync) {
    let waited = timeout(Duration::from_secs(10), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.expect("it never came true");
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

async fn ask(stream: &mut TcpStream, what: &str) -> io::Result<String> {
    stream.write_all(what.as_bytes()).await?;
    read(stream, what.len()).await
}

async fn read(stream: &mut TcpStream, bytes: usize) -> io::Result<String> {
    let mut buffer = vec![0; bytes];
    timeout(Duration::from_secs(10), stream.read_exact(&mut buffer))
        .await
        .expect("no answer")?;
    Ok(String::from_utf8(buffer).unwrap())
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    timeout(Duration::from_millis(60), stream.read(&mut [0; 64]))
        .await
        .is_err()
}

#[tokio::test]
async fn carries_and_counts() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(&echo.address).await.unwrap();
    let mut client = connect(&proxy).await;
    assert_eq!(ask(&mut client, "hello").await.unwrap(), "hello");
    assert_eq!(ask(&mut client, "you").await.unwrap(), "you");
    let traffic = proxy.traffic();
    assert_eq!((traffic.accepted, traffic.open, traffic.refused), (1, 1, 0));
    assert_eq!(
        (traffic.requests, traffic.to_server, traffic.to_client),
        (2, 8, 8)
    );
    assert_eq!(proxy.connections()[0].traffic(), traffic);
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    echo.until_open(0).await;
    eventually(|| proxy.traffic().open == 0).await;
}

#[tokio::test]
async fn a_url_goes_through() {
    let proxy = Proxy::start("127.0.0.1:1").await.unwrap();
    let port = proxy.address().port();
    assert_eq!(
        proxy.url("redis://u:p@db.example:6379/3?ttl=5s"),
        Some(format!("redis://u:p@127.0.0.1:{port}/3?ttl=5s"))
    );
    assert_eq!(proxy.url("memory:"), None);
    // Nobody listens at the server's address: the client is told at once.
    let mut client = connect(&proxy).await;
    let error = client.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn cuts_in_order_or_at_once() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(&echo.address).await.unwrap();
    let (mut first, mut second) = (connect(&proxy).await, connect(&proxy).await);
    ask(&mut first, "1").await.unwrap();
    ask(&mut second, "2").await.unwrap();
    proxy.connections()[0].cut(Side::Both, Cut::Reset);
    let error = first.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(ask(&mut second, "3").await.unwrap(), "3");
    proxy.cut(Side::Both, Cut::Close);
    assert_eq!(second.read(&mut [0; 8]).await.unwrap(), 0);
    echo.until_open(0).await;
}

#[tokio::test]
async fn leaves_one_side_half_open() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(&echo.address).await.unwrap();
    let mut client = connect(&proxy).await;
    ask(&mut client, "1").await.unwrap();
    let connection = proxy.connections().remove(0);
    connection.cut(Side::Client, Cut::Close);
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(proxy.traffic().open, 1);
    assert_eq!(echo.open.load(Ordering::SeqCst), 1);
    connection.cut(Side::Both, Cut::Reset);
    echo.until_open(0).await;

    let mut client = connect(&proxy).await;
    ask(&mut client, "2").await.unwrap();
    proxy.cut(Side::Server, Cut::Close);
    echo.until_open(0).await;
    client.write_all(b"3").await.unwrap();
    assert!(is_silent(&mut client).await);
    drop(connection);
    drop(client);
    eventually(|| proxy.traffic().open == 0).await;
}

#[tokio::test]
async fn stalls_and_goes_on() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(&echo.address).await.unwrap();
    let mut client = connect(&proxy).await;
    ask(&mut client, "a").await.unwrap();
    proxy.stall(true);
    client.write_all(b"b").await.unwrap();
    assert!(is_silent(&mut client).await);
    assert_eq!(echo.heard(), "a");
    proxy.stall(false);
    assert_eq!(read(&mut client, 1).await.unwrap(), "b");

    proxy.stall_one_way(Direction::ToClient, true);
    client.write_all(b"c").await.unwrap();
    echo.until_heard("abc").await;
    assert!(is_silent(&mut client).await);
    proxy.heal();
    assert_eq!(read(&mut client, 1).await.unwrap(), "c");
    // A stalled connection can be cut.
    proxy.stall(true);
    proxy.cut(Side::Both, Cut::Close);
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn delays_without_reordering() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(&echo.address).await.unwrap();
    let mut client = connect(&proxy).await;
    ask(&mut client, "a").await.unwrap();
    let delay = Duration::from_millis(40);
    proxy.delay(Direction::ToServer, delay);
    proxy.connections()[0].delay(Direction::ToClient, delay);
    let sent = tokio::time::Instant::now();
    client.write_all(b"b").await.unwrap();
    tokio::time::sleep(delay / 4).await;
    client.write_all(b"c").await.unwrap();
    assert_eq!(read(&mut client, 2).await.unwrap(), "bc");
    assert!(sent.elapsed() >= 2 * delay);
}

#[tokio::test]
async fn refuses_or_ignores_who_comes() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(&echo.address).await.unwrap();
    proxy.set_entrance(Entrance::Refuse);
    let refused = match TcpStream::connect(proxy.address()).await {
        Ok(mut client) => client.read(&mut [0; 8]).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(refused.kind(), ErrorKind::ConnectionReset);
    assert_eq!((proxy.traffic().refused, proxy.traffic().open), (1, 0));
    proxy.set_entrance(Entrance::Ignore);
    let mut client = connect(&proxy).await;
    client.write_all(b"a").await.unwrap();
    assert!(is_silent(&mut client).await);
    assert_eq!(echo.open.load(Ordering::SeqCst), 0);
    proxy.set_entrance(Entrance::Open);
    assert_eq!(read(&mut client, 1).await.unwrap(), "a");
}

#[tokio::test]
async fn a_trap_swallows_one_request() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(&echo.address).await.unwrap();
    let mut client = connect(&proxy).await;
    proxy.set_trap(Trap::request(Then::Cut(Cut::Reset)).containing("GO").after(1));
    assert_eq!(ask(&mut client, "stay").await.unwrap(), "stay");
    assert_eq!(ask(&mut client, "GO1").await.unwrap(), "GO1");
    assert_eq!(proxy.struck(), 0);
    let error = ask(&mut client, "a GO").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    proxy.until_struck(1).await;
    assert_eq!(echo.heard(), "stayGO1");
    assert_eq!(ask(&mut connect(&proxy).await, "GO2").await.unwrap(), "GO2");
    assert!(!proxy.disarm());
}

#[tokio::test]
async fn a_trap_swallows_one_reply() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(&echo.address).await.unwrap();
    let (mut client, mut other) = (connect(&proxy).await, connect(&proxy).await);
    proxy.set_trap(Trap::reply(Then::Cut(Cut::Close)));
    client.write_all(b"a").await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(echo.heard(), "a");
    assert_eq!(ask(&mut other, "b").await.unwrap(), "b");

    proxy.set_trap(Trap::reply(Then::Stall));
    other.write_all(b"c").await.unwrap();
    proxy.until_struck(2).await;
    echo.until_heard("abc").await;
    other.write_all(b"d").await.unwrap();
    proxy.heal();
    assert!(is_silent(&mut other).await);
    assert_eq!(echo.heard(), "abc");
}

#[tokio::test]
async fn tells_of_a_cut_before_the_server_knows() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(&echo.address).await.unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let (tells, open) = (Arc::clone(&told), Arc::clone(&echo.open));
    proxy.on_cut(move || tells.lock().unwrap().push(open.load(Ordering::SeqCst)));

    let mut client = connect(&proxy).await;
    ask(&mut client, "ends by itself").await.unwrap();
    drop(client);
    echo.until_open(0).await;
    let mut client = connect(&proxy).await;
    ask(&mut client, "ends on its side").await.unwrap();
    proxy.cut(Side::Client, Cut::Close);
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(*told.lock().unwrap(), [0; 0]);

    for (times, side) in [Side::Server, Side::Both].into_iter().enumerate() {
        let mut client = connect(&proxy).await;
        ask(&mut client, "ends").await.unwrap();
        let connection = proxy.connections().pop().unwrap();
        connection.cut(side, Cut::Close);
        // Beside the half that was left above.
        echo.until_open(1).await;
        assert_eq!(*told.lock().unwrap(), vec![2; times + 1]);
    }
    let mut client = connect(&proxy).await;
    proxy.set_trap(Trap::request(Then::Cut(Cut::Reset)));
    client.write_all(b"struck").await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap_or(0), 0);
    echo.until_open(1).await;
    assert_eq!(told.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_storm_is_decided_by_its_seed() {
    let taken = |seed| Storm::new(seed).take(50).collect::<Vec<_>>();
    assert_eq!(taken(1), taken(1));
    assert_ne!(taken(1), taken(2));
    let echo = Echo::start().await;
    let proxy = Proxy::start(&echo.address).await.unwrap();
    let short = Duration::from_millis(3);
    let chaos = proxy.chaos(Storm::new(3).pauses(Duration::ZERO, short).longest(short));
    let wanted = taken(3).len();
    let waited = timeout(Duration::from_secs(20), async {
        while chaos.log().len() < wanted {
            let Ok(mut client) = TcpStream::connect(proxy.address()).await else {
                continue;
            };
            // Whatever comes back was sent.
            if let Ok(Ok(said)) = timeout(Duration::from_millis(5), ask(&mut client, "x")).await {
                assert_eq!(said, "x");
            }
        }
    });
    waited.await.expect("the storm goes on");
    drop(chaos);
    assert_eq!(ask(&mut connect(&proxy).await, "calm").await.unwrap(), "calm");
    eventually(|| proxy.traffic().open == 0).await;
}

#[tokio::test]
async fn nothing_outlives_the_proxy() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(&echo.address).await.unwrap();
    let (mut client, mut stalled) = (connect(&proxy).await, connect(&proxy).await);
    ask(&mut client, "a").await.unwrap();
    ask(&mut stalled, "b").await.unwrap();
    proxy.connections()[1].stall(true);
    let (address, shared) = (proxy.address(), Arc::downgrade(&proxy.shared));
    drop(proxy);
    for client in [&mut client, &mut stalled] {
        assert_eq!(client.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }
    echo.until_open(0).await;
    eventually(|| shared.strong_count() == 0).await;
    assert!(TcpStream::connect(address).await.is_err());
}

//! Why a grant has a token: a holder that was paused for too long writes after its lock has gone to somebody else. It
//! cannot know, and no lock service can stop it. The store can.
//!
//! `cargo run --example fencing --features redis -- redis://localhost`; without a URL, in memory.
#![expect(clippy::print_stdout, reason = "it shows what it does")]
#![expect(clippy::disallowed_methods, reason = "it lives in real time")]

use std::sync::Mutex;
use std::time::Duration;

use leasehold::Token;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// A store that remembers the largest token that it has seen, and refuses a smaller one. In SQL:
/// `UPDATE report SET body = $1, token = $2 WHERE id = $3 AND token <= $2`, where no row changed means refused.
#[derive(Default)]
struct Store(Mutex<(Option<Token>, String)>);

impl Store {
    fn write(&self, token: Token, text: &str) -> Result<(), String> {
        let mut stored = self.0.lock().map_err(|error| error.to_string())?;
        if stored.0.is_some_and(|seen| token < seen) {
            return Err(format!("token {token} is stale, {:?} was here", stored.0));
        }
        *stored = (Some(token), text.to_owned());
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "memory:".into());
    let locks = leasehold::connect(&url).await?;
    let store = Store::default();
    let ttl = Duration::from_millis(300);

    // Without renewal, as if the whole process stood still: a long collection of garbage, a suspended machine.
    let paused = locks
        .lock("examples/fencing")
        .ttl(ttl)
        .auto_renew(false)
        .acquire()
        .await?;
    let late = paused.token();
    store.write(late, "first")?;
    println!("the first holder has token {late} and writes, then it is paused");
    let reason = paused.lost().await;
    println!("its guard tells, if somebody asks: {reason}");

    let next = locks
        .lock("examples/fencing")
        .wait(Duration::from_secs(5))
        .acquire()
        .await?;
    store.write(next.token(), "second")?;
    println!("the next holder has token {} and writes", next.token());
    if next.token() <= late {
        return Err("the token did not grow".into());
    }

    // The first one wakes up in the middle of its work, past its last look at the guard.
    tokio::time::sleep(ttl).await;
    match store.write(late, "first again") {
        Err(refused) => println!("the store refuses the first holder: {refused}"),
        Ok(()) => return Err("a stale write went through".into()),
    }
    store.write(next.token(), "second again")?;
    let _freed = next.release().await?;
    locks.close().await?;
    Ok(())
}

//! Telling waiters of other processes that their turn has come.
//!
//! Each driver has a datagram socket in the folder `<database>-wake`, named by random digits that stand in the rows of
//! its waiters. Whoever frees a lock sends to the socket of the waiter that it reserved the lock for, after the commit.
//! A socket that refuses belongs to a process that is gone.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockcore::{AttemptId, DriverContext, Signals};
use sqlx::Row as _;

use crate::database::{Database, Value};

#[cfg(unix)]
use crate::socket;

/// The kernel keeps as few as this many unread messages of a socket and refuses the rest.
const FULL_QUEUE: usize = 10;

/// The waiters of a process that a lock is reserved for: what it would have been told.
const RESERVED: &str = "SELECT waiter.attempt FROM leasehold_waiter AS waiter \
     JOIN leasehold_lock AS lock ON lock.key = waiter.key AND lock.owner = waiter.attempt AND lock.held = 0 \
     WHERE waiter.wake = $2 AND $1";

/// What one process tells another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Something happened to this attempt: its turn has come, or its lock was taken away.
    Look(AttemptId),
    /// It comes after a waiter that was told so, and looks after this many milliseconds.
    StandBy(AttemptId, u32),
}

impl Message {
    pub(crate) fn stand_by(attempt: AttemptId, delay: Duration) -> Self {
        Self::StandBy(attempt, u32::try_from(delay.as_millis()).unwrap_or(u32::MAX))
    }

    fn encode(self) -> String {
        match self {
            Self::Look(attempt) => format!("w{}", attempt.to_hex()),
            Self::StandBy(attempt, millis) => format!("s{}|{millis}", attempt.to_hex()),
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        if let Some(attempt) = text.strip_prefix('w') {
            return Some(Self::Look(AttemptId::from_hex(attempt)?));
        }
        let (attempt, millis) = text.strip_prefix('s')?.split_once('|')?;
        Some(Self::StandBy(AttemptId::from_hex(attempt)?, millis.parse().ok()?))
    }

    fn deliver(self, signals: &Signals) {
        match self {
            Self::Look(attempt) => signals.wake(attempt),
            Self::StandBy(attempt, millis) => {
                signals.wake_in(attempt, Duration::from_millis(millis.into()));
            }
        }
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It was delivered, or nobody knows.
    Perhaps,
    /// The process that it was for is gone.
    Dead,
}

/// The socket of this process while somebody listens to it.
#[derive(Debug)]
struct Listener {
    id: Arc<str>,
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
        std::fs::remove_file(&self.path).ok();
    }
}

/// This driver's socket, and the way to the others.
#[derive(Debug)]
pub(crate) struct Wake {
    database: Arc<Database>,
    context: DriverContext,
    folder: PathBuf,
    /// `None` where waiters ask by themselves.
    listener: Mutex<Option<Listener>>,
    /// Is there to be a socket? Not after the end, and not where none could be made.
    push: AtomicBool,
}

impl Wake {
    /// Listens, if `push` is wanted and can be had.
    pub(crate) fn start(database: &Arc<Database>, context: &DriverContext, push: bool) -> Self {
        let mut folder = database.path().as_os_str().to_owned();
        folder.push("-wake");
        let wake = Self {
            database: Arc::clone(database),
            context: context.clone(),
            folder: folder.into(),
            listener: Mutex::new(None),
            push: AtomicBool::new(false),
        };
        if push {
            match wake.listen() {
                Ok(listener) => {
                    wake.push.store(true, Ordering::Release);
                    *wake.lock() = Some(listener);
                }
                Err(error) => tracing::warn!(
                    %error,
                    folder = %wake.folder.display(),
                    "no socket can be made beside the database: waiters ask again and again instead"
                ),
            }
        }
        wake
    }

    /// Are this driver's waiters told when their turn has come?
    pub(crate) fn is_push(&self) -> bool {
        self.push.load(Ordering::Acquire)
    }

    /// What others send to; `None` when waiters ask by themselves. A socket that was removed is made anew.
    pub(crate) fn address(&self) -> Option<Arc<str>> {
        let mut listener = self.lock();
        if !self.is_push() {
            return None;
        }
        let alive = listener
            .as_ref()
            .is_some_and(|listener| is_there(&listener.path) && !listener.task.is_finished());
        if !alive {
            *listener = None;
            *listener = self.listen().ok();
        }
        listener.as_ref().map(|listener| Arc::clone(&listener.id))
    }

    /// Sends `message` to the process at `address`.
    pub(crate) fn send(&self, address: Option<&str>, message: Message) -> Sent {
        let Some(address) = address else {
            return Sent::Perhaps;
        };
        if self
            .lock()
            .as_ref()
            .is_some_and(|listener| *listener.id == *address)
        {
            message.deliver(&self.context.signals);
            return Sent::Perhaps;
        }
        self.send_out(address, message)
    }

    /// Listens no more, and removes the socket.
    pub(crate) fn close(&self) {
        let mut listener = self.lock();
        self.push.store(false, Ordering::Release);
        *listener = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Listener>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(unix)]
    fn send_out(&self, address: &str, message: Message) -> Sent {
        // What another process wrote is not taken for a path.
        if !socket::is_id(address) {
            return Sent::Perhaps;
        }
        match socket::send(&self.folder, address, message.encode().as_bytes()) {
            Err(error) if socket::says_dead(&error) => Sent::Dead,
            // A full queue is one that a process has not read yet: it will look by itself, see `listen_to`.
            _ => Sent::Perhaps,
        }
    }

    #[cfg(unix)]
    fn listen(&self) -> std::io::Result<Listener> {
        let bits = self.context.env.random_u128().map_err(std::io::Error::other)?;
        let id: Arc<str> = socket::id(bits).into();
        let socket = socket::bind(&self.folder, &id, self.database.path())?;
        // Left by killed processes; what cannot be swept now is swept by another one.
        socket::sweep(&self.folder).ok();
        let task = listen_to(
            socket,
            Arc::clone(&id),
            Arc::clone(&self.database),
            self.context.signals.clone(),
        );
        Ok(Listener {
            path: self.folder.join(&*id),
            task: self.context.env.spawn(task),
            id,
        })
    }

    #[cfg(not(unix))]
    fn send_out(&self, _address: &str, _message: Message) -> Sent {
        Sent::Perhaps
    }

    #[cfg(not(unix))]
    fn listen(&self) -> std::io::Result<Listener> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

fn is_there(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

#[cfg(unix)]
async fn listen_to(
    socket: tokio::net::UnixDatagram,
    id: Arc<str>,
    database: Arc<Database>,
    signals: Signals,
) {
    let mut buffer = [0; 64];
    while socket.readable().await.is_ok() {
        let mut burst = 0;
        while burst < 8 * FULL_QUEUE
            && let Ok(length) = socket.try_recv(&mut buffer)
        {
            burst += 1;
            if let Some(message) = Message::decode(&buffer[..length]) {
                message.deliver(&signals);
            }
        }
        // So many at once may have been too many: the table tells what was refused.
        if burst >= FULL_QUEUE {
            look_up(&id, &database, &signals).await;
        }
    }
}

#[cfg(unix)]
async fn look_up(id: &Arc<str>, database: &Database, signals: &Signals) {
    let Ok(answer) = database.read(RESERVED, &[Value::from(id)]).await else {
        // Nothing is known: better one request too many.
        return signals.wake_all();
    };
    for row in answer.rows {
        if let Some(attempt) = row.try_get(0).ok().and_then(AttemptId::from_hex) {
            signals.wake(attempt);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back() {
        let attempt = AttemptId::from_bits(0x00ff);
        for message in [
            Message::Look(attempt),
            Message::stand_by(attempt, Duration::from_millis(405)),
            Message::stand_by(attempt, Duration::MAX),
        ] {
            let text = message.encode();
            assert!(text.len() < 64);
            assert_eq!(Message::decode(text.as_bytes()), Some(message));
        }
        for garbage in ["", "w", "wxyz", "s", "s|", "s00|1", "w\u{e9}", "x00"] {
            assert_eq!(Message::decode(garbage.as_bytes()), None, "{garbage}");
        }
    }
}

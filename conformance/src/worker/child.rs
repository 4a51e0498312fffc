//! The side of the worker process.

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lockcore::{Env, ErrorKind, LossReason, Manager, Namespace, Release, Settings, Wait};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

use super::{ASSIGNMENT, Answer, Assignment, Command, Line, Order};
use crate::backend::Backend;
use crate::client::{Client, Held};
use crate::failure::{Checked, Failure};
use crate::history::History;
use crate::seam::{Link, Seam};

/// Runs as a worker, to the end, if the environment says so.
pub(crate) fn run_if_asked(backends: &[Arc<dyn Backend>]) -> Option<ExitCode> {
    let assignment = std::env::var(ASSIGNMENT).ok()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let worked = match runtime {
        Ok(runtime) => runtime.block_on(work(&assignment, backends)),
        Err(error) => Err(error.into()),
    };
    // Whatever else goes on (a blocking read of stdin, a driver's tasks) ends with the process.
    Some(match worked {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            ExitCode::FAILURE
        }
    })
}

#[expect(clippy::print_stderr, reason = "the parent's own standard error shows it")]
fn complain(failure: &Failure) {
    eprintln!("worker process: {failure}");
}

async fn work(assignment: &str, backends: &[Arc<dyn Backend>]) -> Checked {
    let assignment: Assignment = serde_json::from_str(assignment)?;
    let backend = backends
        .iter()
        .find(|backend| backend.name() == assignment.backend)
        .ok_or_else(|| Failure::new("the worker does not know the backend"))?
        .at(&assignment.url)?;
    let hands = Arc::new(Hands {
        client: client(&assignment, backend.as_ref()).await?,
        held: Mutex::default(),
    });
    let (answers, mut outgoing) = mpsc::unbounded_channel::<Line<Answer>>();
    answers.send(Line {
        id: 0,
        body: Answer::Ready,
    })?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut output = tokio::io::stdout();
    loop {
        tokio::select! {
            line = lines.next_line() => {
                // The end of the input is the end of the parent.
                let Some(line) = line? else { return Ok(()) };
                let Line { id, body } = serde_json::from_str(&line)?;
                if matches!(body, Command::Exit) {
                    return Ok(());
                }
                let (hands, answers) = (Arc::clone(&hands), answers.clone());
                drop(hands.client.env().clone().spawn(async move {
                    let body = hands.obey(body).await.unwrap_or_else(|failure| Answer::Failed {
                        message: failure.to_string(),
                    });
                    // Nobody reads on after the end.
                    answers.send(Line { id, body }).ok();
                }));
            }
            Some(answer) = outgoing.recv() => {
                let mut line = serde_json::to_vec(&answer)?;
                line.push(b'\n');
                output.write_all(&line).await?;
                output.flush().await?;
            }
        }
    }
}

async fn client(assignment: &Assignment, backend: &dyn Backend) -> Checked<Client> {
    let env = Env::system();
    let history = History::to_file(&assignment.history)?;
    let (driver, context) = backend.driver(&env).await?;
    let link = Link::default();
    let seam = Seam::new(driver, env.clone(), link.clone(), history.clone());
    let mut settings = Settings::default();
    settings.namespace = Namespace::new(assignment.namespace.as_str())?;
    settings.claim_window = Duration::from_millis(assignment.claim_window_ms);
    let manager = Manager::new(seam, context, settings)?;
    Ok(Client::new(manager, link, history, env))
}

struct Hands {
    client: Client,
    held: Mutex<HashMap<u64, Held>>,
}

impl Hands {
    async fn obey(&self, command: Command) -> Checked<Answer> {
        Ok(match command {
            Command::Acquire { grip, order } => match acquire(&self.client, &order).await? {
                Some(held) => {
                    let token = held.token().get();
                    self.held().insert(grip, held);
                    Answer::Held { token }
                }
                None => Answer::Busy,
            },
            Command::Release { grip } => {
                let held = self.held().remove(&grip);
                let held = held.ok_or_else(|| Failure::new("nothing is held by this number"))?;
                let outcome = held.release().await?;
                Answer::Released {
                    held: outcome == Release::Released,
                }
            }
            Command::Check { grip } => self.with(grip, |held| Answer::State {
                held: held.is_held(),
                remaining_ms: super::millis(held.remaining()),
            })?,
            Command::AwaitLoss { grip } => {
                let lost: BoxFuture<'static, LossReason> = self.with(grip, |held| held.lost().boxed())?;
                Answer::Lost {
                    reason: lost.await.to_string(),
                }
            }
            Command::Count {
                order,
                file,
                rounds,
                pause_ms,
            } => {
                for _ in 0..rounds {
                    let held = acquire(&self.client, &order)
                        .await?
                        .ok_or_else(|| Failure::new("the wait was over"))?;
                    count(&file, Duration::from_millis(pause_ms), self.client.env()).await?;
                    held.release().await?;
                }
                Answer::Done
            }
            Command::Exit => Answer::Done,
        })
    }

    fn with<T>(&self, grip: u64, look: impl FnOnce(&Held) -> T) -> Checked<T> {
        self.held()
            .get(&grip)
            .map(look)
            .ok_or_else(|| Failure::new("nothing is held by this number"))
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn acquire(client: &Client, order: &Order) -> Checked<Option<Held>> {
    let wait = order
        .wait_ms
        .map_or(Wait::Forever, |wait| Duration::from_millis(wait).into());
    let request = client
        .lock(&order.name)
        .ttl(Duration::from_millis(order.ttl_ms))
        .auto_renew(order.renew)
        .wait(wait);
    match request.acquire().await {
        Ok(held) => Ok(Some(held)),
        Err(error) if error.kind() == ErrorKind::Timeout => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Adds one to the number in `file`, as carelessly as can be: only the lock makes it right.
async fn count(file: &Path, pause: Duration, env: &Env) -> Checked {
    let number: u64 = std::fs::read_to_string(file)?.trim().parse()?;
    env.sleep(pause).await;
    // At one stroke, so that a process that is killed leaves one number or the other.
    let fresh = file.with_extension(std::process::id().to_string());
    std::fs::write(&fresh, (number + 1).to_string())?;
    Ok(std::fs::rename(fresh, file)?)
}

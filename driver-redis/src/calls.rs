//! What a call needs, and how scripts are called.

use std::sync::Arc;

use lockcore::{DriverContext, Result, Supervisor};
use redis::{Cmd, Pipeline, Value, cmd};

use crate::connection::{Connector, Failure, Link};
use crate::reply;
use crate::scripts::{Program, Scripts};

/// The connection, and what is known on it.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) context: DriverContext,
    pub(crate) supervisor: Supervisor<Connector>,
    pub(crate) scripts: Arc<Scripts>,
    pub(crate) channel: Arc<str>,
}

impl Calls {
    pub(crate) async fn link(&self) -> Result<Link> {
        self.supervisor.connection(&self.context).await
    }

    /// Runs a script by its hash, and by its text when the server has forgotten it.
    pub(crate) async fn run(
        &self,
        link: &Link,
        program: &Program,
        arguments: impl Fn(&mut Cmd) + Send + Sync,
    ) -> Result<Value> {
        let mut by_hash = cmd("EVALSHA");
        arguments(by_hash.arg(&program.hash));
        match link.send(&by_hash).await {
            Err(failure) if failure.is_noscript() => {
                let mut by_text = cmd("EVAL");
                arguments(by_text.arg(program.text));
                Ok(link.send(&by_text).await?)
            }
            reply => Ok(reply?),
        }
    }

    /// The same for many calls in one pipeline; what failed stands among the replies.
    pub(crate) async fn run_all<A: Fn(&mut Cmd) + Sync>(
        &self,
        link: &Link,
        program: &Program,
        calls: &[A],
    ) -> Result<Vec<Result<Value, Failure>>> {
        let mut replies = send_calls(link, calls, "EVALSHA", &program.hash).await?;
        let unknown = |reply: &Result<Value, Failure>| reply.as_ref().is_err_and(Failure::is_noscript);
        let forgotten: Vec<_> = (0..replies.len()).filter(|at| unknown(&replies[*at])).collect();
        if !forgotten.is_empty() {
            let again: Vec<_> = forgotten.iter().map(|at| &calls[*at]).collect();
            let answers = send_calls(link, &again, "EVAL", program.text).await?;
            for (at, answer) in forgotten.into_iter().zip(answers) {
                replies[at] = answer;
            }
        }
        Ok(replies)
    }

    /// Runs a script that frees a lock until it has dropped every dead waiter; whether it freed anything.
    pub(crate) async fn free(
        &self,
        program: &Program,
        arguments: impl Fn(&mut Cmd) + Send + Sync,
    ) -> Result<bool> {
        let link = self.link().await?;
        let mut freed = false;
        loop {
            let reply = self.run(&link, program, &arguments).await?;
            let (done, more) = reply::freed(&reply)?;
            freed |= done;
            if !more {
                return Ok(freed);
            }
        }
    }
}

async fn send_calls<A: Fn(&mut Cmd) + Sync>(
    link: &Link,
    calls: &[A],
    command: &str,
    program: &str,
) -> Result<Vec<Result<Value, Failure>>> {
    let mut pipeline = Pipeline::with_capacity(calls.len());
    for arguments in calls {
        let mut call = cmd(command);
        arguments(call.arg(program));
        pipeline.add_command(call);
    }
    let replies = link.send_all(&pipeline).await?;
    let reply = |value| match value {
        Value::ServerError(error) => Err(link.failed(Failure::Client(error.into()))),
        value => Ok(value),
    };
    Ok(replies.into_iter().map(reply).collect())
}

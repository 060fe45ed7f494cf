//! Child processes that can't outlive the demo, not even when it is killed.

use anyhow::Context as _;
use std::{
    fmt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    process::{Child, ChildStdin, Command},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Interrupted, account::Account};

const SCRIPT: &str = include_str!("watchdog.sh");

/// How long the watchdog waits after each signal before it sends the next.
const GRACE: Duration = Duration::from_secs(10);

/// When the watchdog itself must be done: three signals and a little.
const DEADLINE: Duration = Duration::from_secs(35);

/// How a program is told to end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ending {
    /// A PostgreSQL server: fast shutdown, immediate shutdown, SIGKILL.
    Server,
    /// Anything else: SIGTERM, SIGKILL.
    Tool,
}

/// A program with a lifeline: a pipe that only we hold. When it closes, because we close it or
/// because we died, a watchdog ends the program. Our child is the watchdog's shell, which ends
/// after all that it started.
pub(super) struct Guarded {
    child: Child,
    lifeline: Option<ChildStdin>,
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guarded").field(&self.child.id()).finish()
    }
}

/// What to run, where, as whom.
#[derive(Debug)]
pub(super) struct Program<'a> {
    pub(super) path: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) ending: Ending,
    pub(super) account: &'a Account,
    /// Working directory.
    pub(super) dir: &'a Path,
    /// Gets standard output and error; the account must be able to write it.
    pub(super) log: &'a Path,
}

impl Guarded {
    /// Starts it.
    pub(super) fn start(program: &Program<'_>) -> anyhow::Result<Self> {
        let mut command = Command::new("sh");
        let signals = match program.ending {
            Ending::Server => "INT QUIT KILL",
            Ending::Tool => "TERM KILL",
        };
        let grace = GRACE.as_secs().to_string();
        command.args(["-c", SCRIPT, "sh", signals, &grace]);
        command.arg(program.log).arg(&program.path);
        command.args(&program.args).current_dir(program.dir);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name); // PGDATA, PGOPTIONS and the like are not meant for us
            }
        }
        command.stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        program.account.apply(&mut command);
        let mut child = command
            .spawn()
            .with_context(|| format!("can't start {}", program.path.display()))?;
        Ok(Self {
            lifeline: child.stdin.take(),
            child,
        })
    }

    /// Waits until the child ends by itself.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn exited(&mut self) -> std::io::Result<ExitStatus> {
        // `Child::wait` would close the lifeline if it still owned it; it is taken out at start.
        self.child.wait().await
    }

    /// Runs it to its end, or ends it when `stop` is cancelled.
    pub(super) async fn finish(mut self, stop: &CancellationToken) -> anyhow::Result<ExitStatus> {
        let status = stop.run_until_cancelled(self.exited()).await;
        self.end().await;
        Ok(status.ok_or(Interrupted)??)
    }

    /// Ends it and waits until it and its watchdog are gone.
    pub(super) async fn end(mut self) {
        self.lifeline = None;
        if timeout(DEADLINE, self.child.wait()).await.is_err() {
            tracing::warn!(pid = self.child.id(), "a child process does not end");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::stray::processes_in;

    fn start(command: &[&str], dir: &Path) -> Guarded {
        let program = Program {
            path: command[0].into(),
            args: command[1..].iter().map(ToString::to_string).collect(),
            ending: Ending::Tool,
            account: &Account::Own,
            dir,
            log: &dir.join("log"),
        };
        Guarded::start(&program).unwrap()
    }

    async fn status(guarded: &mut Guarded) -> ExitStatus {
        let exited = timeout(Duration::from_secs(5), guarded.exited()).await;
        exited.expect("it ends").unwrap()
    }

    #[tokio::test]
    async fn a_closed_lifeline_ends_the_child() {
        let dir = tempfile::tempdir().unwrap();
        let mut guarded = start(&["sleep", "1000"], dir.path());
        drop(guarded.lifeline.take()); // what the kernel does when we are killed
        assert!(!status(&mut guarded).await.success());
        assert_eq!(processes_in(dir.path()), Vec::<u32>::new());
    }

    #[tokio::test]
    async fn a_program_that_ends_early_takes_the_watchdog_along() {
        let dir = tempfile::tempdir().unwrap();
        let mut guarded = start(&["false"], dir.path());
        assert_eq!(status(&mut guarded).await.code(), Some(1));
        assert_eq!(processes_in(dir.path()), Vec::<u32>::new());
    }

    #[tokio::test]
    async fn an_interrupted_program_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let guarded = start(&["sleep", "1000"], dir.path());
        let stop = CancellationToken::new();
        stop.cancel();
        let error = guarded.finish(&stop).await.unwrap_err();
        assert!(error.is::<Interrupted>());
        assert_eq!(processes_in(dir.path()), Vec::<u32>::new());
    }
}

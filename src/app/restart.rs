//! SIGUSR2: a new process takes the connections, this one goes on with its sessions until they leave.

use super::{
    App,
    handover::{self, Hello, Successor, VARIABLE, hand_over},
    notify_service_manager,
    sockets::Label,
};
use crate::{config::Proxy, frontend::Frontend, sessions::CancelDoor, telemetry::names};
use anyhow::Context as _;
use std::{
    env, io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a new process that has closed its channel, or was killed, may take to end.
const END_TIME_MAX: Duration = Duration::from_secs(5);

/// How long listeners may take to close.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

/// What the file says about restarts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How long the new process may take to become ready.
    timeout: Duration,
    /// How long sessions may stay with the old one; `None`: as they like.
    grace: Option<Duration>,
}

impl From<&Proxy> for Limits {
    fn from(proxy: &Proxy) -> Self {
        Self {
            timeout: proxy.restart_timeout,
            grace: proxy.restart_grace,
        }
    }
}

/// What a successor is given.
struct Estate {
    sockets: Vec<(Label, OwnedFd)>,
    /// This program, by the name that it had at the start.
    program: PathBuf,
    frontend: Arc<Frontend>,
    limits: watch::Receiver<Limits>,
}

/// What takes connections.
#[derive(Debug, Default)]
pub(super) struct Doors {
    pub(super) listeners: TaskTracker,
    /// Connections on their way to a session.
    pub(super) logins: TaskTracker,
}

/// Waits for SIGUSR2.
pub(super) struct Restarts {
    signals: mpsc::Receiver<()>,
    estate: Estate,
}

/// A process that serves in this one's place.
struct Heir {
    child: Child,
    hello: Hello,
    door: CancelDoor,
}

/// Ends a new process that was not ready, wherever that shows.
struct Newcomer(Option<Child>);

impl Drop for Newcomer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            child.start_kill().ok();
        }
    }
}

impl Restarts {
    /// With all sockets, to hand them over.
    ///
    /// # Errors
    /// When there are no descriptors left, or the program's own file can't be found.
    pub(super) fn new(signals: mpsc::Receiver<()>, app: &App) -> io::Result<Self> {
        let mut sockets = Vec::new();
        for (label, bound) in &app.listeners {
            sockets.push((label.clone(), bound.share()?));
        }
        if let Some((label, listener)) = &app.admin {
            sockets.push((label.clone(), listener.try_clone()?.into()));
        }
        Ok(Self {
            signals,
            estate: Estate {
                sockets,
                // Later on, the kernel would only say that it is deleted.
                program: env::current_exe()?,
                frontend: Arc::clone(&app.frontend),
                limits: app.restart_limits.subscribe(),
            },
        })
    }

    /// Waits until a successor serves; then until this process's sessions and logins have ended, or
    /// `restart_grace` has passed.
    ///
    /// # Cancel safety
    /// A new process that does not serve yet is killed. The sockets that are kept to be handed over are
    /// closed.
    pub(super) async fn leave(self, doors: Doors) {
        let Self {
            mut signals,
            estate,
        } = self;
        let heir = handed_over(&mut signals, &estate).await;
        let Estate {
            sockets,
            frontend,
            limits,
            ..
        } = estate;
        frontend.retired.cancel();
        drop(sockets);
        doors.listeners.close();
        // One that just could not accept takes a moment.
        drop(timeout(CLOSE_TIME_MAX, doors.listeners.wait()).await);
        let pid = heir.hello.pid;
        tracing::info!(
            pid,
            version = heir.hello.version,
            clients = frontend.sessions.count(),
            "another process takes the connections; this one keeps its sessions"
        );
        notify_service_manager(&[sd_notify::NotifyState::MainPid(pid)]);
        tokio::spawn(heir.door.serve(Arc::clone(&frontend.sessions)));
        tokio::spawn(follow(heir.child));
        frontend.pools.retire();
        let all_left = async {
            doors.logins.close();
            doors.logins.wait().await;
            frontend.tasks.close();
            frontend.tasks.wait().await;
        };
        let refused = async {
            while signals.recv().await.is_some() {
                tracing::warn!(pid, "no restart: another process has taken over already");
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = all_left => {}
            () = grace_over(limits) => tracing::info!("restart_grace has passed"),
            () = refused => {}
        }
    }
}

/// Waits for a signal, and for a new process that serves. One that does not changes nothing.
async fn handed_over(signals: &mut mpsc::Receiver<()>, estate: &Estate) -> Heir {
    loop {
        if signals.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        tracing::info!("restarting: a new process is started");
        let attempt = estate.attempt();
        tokio::pin!(attempt);
        let result = loop {
            tokio::select! {
                result = &mut attempt => break result,
                Some(()) = signals.recv() => {
                    tracing::warn!("no second restart: one is under way");
                }
            }
        };
        match result {
            Ok(heir) => return heir,
            Err(error) => tracing::error!("restart failed, nothing was changed: {error:#}"),
        }
        metrics::counter!(names::RESTARTS_TOTAL, names::RESULT => names::ERROR).increment(1);
    }
}

impl App {
    /// Cancelled when this process has `ended`, or when another has taken over: for work that one process
    /// does for all.
    pub(super) fn until_retired(&self, ended: &CancellationToken) -> CancellationToken {
        let (until, retired) = (ended.child_token(), self.frontend.retired.clone());
        let either = until.clone();
        tokio::spawn(either.clone().run_until_cancelled_owned(async move {
            retired.cancelled().await;
            either.cancel();
        }));
        until
    }
}

impl Estate {
    async fn attempt(&self) -> anyhow::Result<Heir> {
        // What a container ends with is its first process.
        anyhow::ensure!(
            std::process::id() != 1,
            "pgusher is process 1 of a container, which ends with it; replace the container instead"
        );
        let door = CancelDoor::open().context("no socket for cancels")?;
        let (mut newcomer, channel) = self.start(&door)?;
        let mut successor = Successor::new(channel)?;
        let limit = self.limits.borrow().timeout;
        match timeout(limit, successor.serves()).await {
            Ok(Ok(hello)) => {
                let child = newcomer.0.take().context("it is there")?;
                return Ok(Heir { child, hello, door });
            }
            Ok(Err(_)) => {}
            Err(_elapsed) => {
                let status = newcomer.kill().await?;
                let limit = humantime::format_duration(limit);
                anyhow::bail!("the new process was not ready within {limit}: {status}");
            }
        }
        let status = newcomer.end().await?;
        anyhow::bail!("the new process ended before it was ready: {status}")
    }

    /// Starts the program by the name that this one was started by; where that leads nowhere, by the
    /// path that it had.
    fn start(&self, door: &CancelDoor) -> anyhow::Result<(Newcomer, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut doors = vec![door.name().to_owned()];
        doors.extend_from_slice(self.frontend.predecessors.names());
        hand_over(&ours, &self.sockets, doors)?;
        let theirs = OwnedFd::from(theirs);
        let identity = handover::identity(&theirs)?;
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_default();
        let arguments: Vec<_> = arguments.collect();
        let spawn = |program: &std::ffi::OsStr| {
            Command::new(program)
                .args(&arguments)
                .env(VARIABLE, &identity)
                .env_remove("LISTEN_PID")
                .env_remove("LISTEN_FDS")
                .env_remove("LISTEN_FDNAMES")
                .stdin(Stdio::from(theirs.try_clone()?))
                .spawn()
        };
        let child = match spawn(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                spawn(self.program.as_os_str())
            }
            child => child,
        };
        let program = || format!("can't start {}", name.display());
        Ok((Newcomer(Some(child.with_context(program)?)), ours))
    }
}

impl Newcomer {
    /// How it ended; it is killed where it does not.
    async fn end(&mut self) -> anyhow::Result<ExitStatus> {
        let child = self.0.as_mut().context("it is there")?;
        match timeout(END_TIME_MAX, child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_elapsed) => self.kill().await,
        }
    }

    async fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        let child = self.0.as_mut().context("it is there")?;
        child.start_kill()?;
        let ended = timeout(END_TIME_MAX, child.wait()).await;
        Ok(ended.context("it can't be killed")??)
    }
}

/// Says when the new process has ended, while this one is still there.
async fn follow(mut child: Child) {
    match child.wait().await {
        Ok(status) if status.success() => tracing::info!("the process that took over has ended"),
        Ok(status) => tracing::warn!(%status, "the process that took over has ended"),
        Err(error) => tracing::error!(%error, "the process that took over is not followed"),
    }
}

/// Waits until sessions have stayed long enough, from now on, by what the file says meanwhile.
async fn grace_over(mut limits: watch::Receiver<Limits>) {
    let since = Instant::now();
    loop {
        let grace = limits.borrow_and_update().grace;
        let end = grace.and_then(|grace| since.checked_add(grace));
        let over = async {
            match end {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => return,
            Ok(()) = limits.changed() => {}
        }
    }
}

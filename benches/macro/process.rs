//! Processes that this bench starts, and their end.
//!
//! Three nets: a guard ends its process when dropped (also while panicking); SIGINT, SIGTERM and
//! SIGHUP end everything that is registered; and where `setpriv` exists the kernel itself ends
//! the processes should this one be killed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;
use std::os::unix::process::CommandExt as _;
use tokio::signal::unix::{SignalKind, signal};

/// How a process is asked to end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    /// PostgreSQL's immediate shutdown: its children end too, and its shared memory is freed.
    Quit,
    /// At once.
    Kill,
}

/// A running process; ended when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    ending: Ending,
    log: PathBuf,
}

/// What has to go when a signal ends the bench.
#[derive(Default)]
struct Registry {
    processes: Vec<(u32, Ending)>,
    folders: Vec<PathBuf>,
}

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

impl Process {
    /// Starts `command` in a process group of its own, its output in `log`.
    pub(crate) fn start(
        name: &'static str,
        mut command: Command,
        ending: Ending,
        log: PathBuf,
    ) -> Result<Self> {
        let output =
            File::create(&log).with_context(|| format!("can't create {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        // Under the lock, so that a signal can't come between the start and the entry.
        let mut registry = REGISTRY.lock();
        let child = command
            .spawn()
            .with_context(|| format!("can't start {name}"))?;
        registry.processes.push((child.id(), ending));
        Ok(Self {
            name,
            child,
            ending,
            log,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error when it has ended, with the end of its log.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.log_end()),
        }
    }

    /// Waits for its own end, at most for `limit`; returns what it printed.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<String> {
        let status = self.wait(limit)?;
        let output = fs::read_to_string(&self.log)?;
        if !status.success() {
            bail!("{} ended with {status}:\n{}", self.name, self.log_end());
        }
        Ok(output)
    }

    fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!(
                    "{} did not end in {limit:?}:\n{}",
                    self.name,
                    self.log_end()
                );
            }
            pause(Duration::from_millis(10));
        }
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines
            .get(lines.len().saturating_sub(8)..)
            .unwrap_or_default()
            .join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            end(self.child.id(), self.ending);
            if self.wait(Duration::from_secs(10)).is_err() {
                self.child.kill().ok();
                self.child.wait().ok();
            }
        }
        let pid = self.child.id();
        REGISTRY.lock().processes.retain(|(other, _)| *other != pid);
    }
}

/// A command that the kernel ends when this process does, where that can be had.
pub(crate) fn command(program: impl AsRef<Path>) -> Command {
    static SETPRIV: LazyLock<Option<PathBuf>> = LazyLock::new(|| find_program("setpriv"));
    let program = program.as_ref();
    SETPRIV.as_ref().map_or_else(
        || Command::new(program),
        |setpriv| {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        },
    )
}

/// `name` in PATH.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Runs `command` to its end and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("can't run {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} ended with {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits for `duration`. The bench needs it for lead-ins and windows, never to hope for an event.
pub(crate) fn pause(duration: Duration) {
    let end = Instant::now() + duration;
    while let Some(left) = end
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        std::thread::park_timeout(left);
    }
}

/// Tries until `attempt` succeeds or `limit` is over; then its last error.
pub(crate) fn retry<T>(limit: Duration, attempt: impl FnMut() -> Result<T>) -> Result<T> {
    retry_while(limit, || Ok(()), attempt)
}

/// The same, but gives up at once when `is_worth_it` fails.
pub(crate) fn retry_while<T>(
    limit: Duration,
    mut is_worth_it: impl FnMut() -> Result<()>,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        is_worth_it()?;
        match attempt() {
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("not within {limit:?}")));
            }
            Err(_) => pause(Duration::from_millis(2)),
            done => return done,
        }
    }
}

/// Has `folder` removed when a signal ends the bench.
pub(crate) fn remove_on_signal(folder: PathBuf) {
    REGISTRY.lock().folders.push(folder);
}

/// Ends everything and exits when a signal asks for it.
pub(crate) fn end_all_on_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let watch = move || {
        runtime.block_on(async {
            let Ok(mut hangup) = signal(SignalKind::hangup()) else {
                return;
            };
            let Ok(mut terminate) = signal(SignalKind::terminate()) else {
                return;
            };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = hangup.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        end_all();
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(watch)?;
    Ok(())
}

#[expect(clippy::exit, reason = "the main thread may be waiting for anything")]
fn end_all() {
    // Never unlocked again: nothing can be started from here on.
    let registry = REGISTRY.lock();
    for (pid, ending) in registry.processes.iter().rev() {
        end(*pid, *ending);
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    let is_left = |(pid, _): &(u32, Ending)| is_running(*pid);
    while registry.processes.iter().any(is_left) && Instant::now() < deadline {
        pause(Duration::from_millis(20));
    }
    for folder in &registry.folders {
        fs::remove_dir_all(folder).ok();
    }
    eprintln!("bench: ended by a signal");
    std::process::exit(130);
}

/// False for a zombie, too: its parent is about to exit.
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, fields)| !fields.starts_with('Z'))
}

fn end(pid: u32, ending: Ending) {
    let signal = match ending {
        Ending::Quit => "QUIT",
        Ending::Kill => "KILL",
    };
    send(pid, signal).ok();
}

/// Sends a signal by its name.
pub(crate) fn send(pid: u32, signal: &str) -> Result<()> {
    output(Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")])).map(drop)
}

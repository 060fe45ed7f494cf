//! Processes of an earlier start, or backends of a server that was killed.

use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{process::Command, time::sleep};

/// How often we look.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The processes that work in this folder or below it: every PostgreSQL process stays in its data
/// directory. Empty where there is no `/proc`.
pub(super) fn processes_in(dir: &Path) -> Vec<u32> {
    let own = std::process::id();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let cwd = fs::read_link(entry.path().join("cwd")).ok()?;
            (pid != own && cwd.starts_with(dir)).then_some(pid)
        })
        .collect()
}

/// Waits until nothing runs in the folder; after `patience` sends SIGQUIT, later SIGKILL.
/// Says whether nothing is left.
pub(super) async fn clear(dir: &Path, patience: Duration) -> bool {
    for (signal, patience) in [
        (None, patience),
        (Some("QUIT"), Duration::from_secs(5)),
        (Some("KILL"), Duration::from_secs(5)),
    ] {
        if let Some(signal) = signal {
            send(signal, &processes_in(dir)).await;
        }
        let started = Instant::now();
        while !processes_in(dir).is_empty() && started.elapsed() < patience {
            sleep(LOOK_EVERY).await;
        }
        if processes_in(dir).is_empty() {
            return true;
        }
    }
    false
}

/// Sends a signal to processes.
pub(super) async fn send(signal: &str, pids: &[u32]) {
    let mut command = Command::new("sh");
    command.args(["-c", "kill -s \"$@\"", "sh", signal]);
    command.args(pids.iter().map(ToString::to_string));
    command.stderr(Stdio::null());
    if let Err(error) = command.status().await {
        tracing::warn!(%error, signal, "can't signal stray processes");
    }
}

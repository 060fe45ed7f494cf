//! Open files: ten thousand clients need as many sockets here, and again in the proxy.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};

/// Sockets for 10,000 clients, and room for the rest.
const WANTED: u64 = 12_000;
/// Set in the second life, so that there is no third.
const RAISED: &str = "PGUSHER_BENCH_LIMIT_RAISED";
/// Raises the soft limit, as far as the hard one allows, and goes on as this program.
const SCRIPT: &str = r#"ulimit -n "$0" 2>/dev/null || ulimit -n "$(ulimit -H -n)"; exec "$@""#;

/// Starts this program again with a higher limit when the present one is too low.
///
/// The proxies inherit it. Returns only when nothing is to be done, or when it failed.
pub(crate) fn raise_open_files() -> Result<()> {
    if open_files()? >= WANTED || std::env::var_os(RAISED).is_some() {
        return Ok(());
    }
    let this = std::env::current_exe().context("can't find this program")?;
    let error = Command::new("sh")
        .args(["-c", SCRIPT, &WANTED.to_string()])
        .arg(this)
        .args(std::env::args_os().skip(1))
        .env(RAISED, "1")
        .exec();
    Err(error).context("can't start again with more open files")
}

/// The soft limit of this process.
pub(crate) fn open_files() -> Result<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").context("no /proc/self/limits")?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line
        .and_then(|line| line.split_whitespace().next())
        .unwrap_or("unlimited");
    Ok(soft.parse().unwrap_or(u64::MAX))
}

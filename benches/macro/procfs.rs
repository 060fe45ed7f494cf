//! What the kernel knows about a process: CPU time, resident memory, open files.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

/// Ticks of `/proc/PID/stat` per second: `USER_HZ`, 100 on every Linux that PostgreSQL runs on.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of a process up to now.
#[derive(Debug)]
pub(crate) struct Cpu {
    user: Duration,
    kernel: Duration,
    /// Nanoseconds of each living thread, by its id; finer than ticks.
    threads: BTreeMap<u32, u64>,
}

/// CPU time between two moments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    pub(crate) total: Duration,
    /// Part of it outside the kernel, 0 to 1; in steps of a tick.
    pub(crate) user_share: f64,
}

impl Cpu {
    /// Up to now.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = read(pid, "stat")?;
        // The name, in parentheses, may contain anything; the fields follow its last one.
        let (_, fields) = stat.rsplit_once(')').context("stat without a name")?;
        let mut times = fields.split_whitespace().skip(11).map(str::parse::<u32>);
        let mut next = || {
            times
                .next()
                .context("stat is too short")?
                .context("not a time in stat")
        };
        Ok(Self {
            user: TICK * next()?,
            kernel: TICK * next()?,
            threads: threads(pid)?,
        })
    }

    /// From `before` to `self`.
    pub(crate) fn since(&self, before: &Self) -> Spent {
        let user = self.user.saturating_sub(before.user);
        let ticks = user + self.kernel.saturating_sub(before.kernel);
        // A thread that ended took its nanoseconds along; then ticks have to do.
        let has_all = before
            .threads
            .keys()
            .all(|id| self.threads.contains_key(id));
        let nanoseconds = self
            .threads
            .iter()
            .map(|(id, now)| now.saturating_sub(before.threads.get(id).copied().unwrap_or(0)));
        let fine = Duration::from_nanos(nanoseconds.sum());
        let total = if has_all && !fine.is_zero() {
            fine
        } else {
            ticks
        };
        let user_share = if ticks.is_zero() {
            0.0
        } else {
            user.div_duration_f64(ticks)
        };
        Spent { total, user_share }
    }
}

/// CPU time of all children that a process has or had (and theirs, once they ended), up to now.
/// What those with more than one thread spend in others than their first is left out.
pub(crate) fn of_children(pid: u32) -> Result<Duration> {
    // Before the living: who ends in between is then missing rather than counted twice.
    let stat = read(pid, "stat")?;
    let (_, fields) = stat.rsplit_once(')').context("stat without a name")?;
    let ended = fields.split_whitespace().skip(13).take(2);
    let ended: u32 = ended.map(str::parse::<u32>).sum::<Result<_, _>>()?;
    let children = read(pid, &format!("task/{pid}/children"))?;
    let mut nanoseconds = 0;
    for child in children.split_whitespace() {
        if let Ok(schedstat) = read(child.parse()?, "schedstat") {
            let spent = schedstat.split_whitespace().next();
            nanoseconds += spent.map_or(Ok(0), str::parse::<u64>)?;
        }
    }
    Ok(TICK * ended + Duration::from_nanos(nanoseconds))
}

fn threads(pid: u32) -> Result<BTreeMap<u32, u64>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(path(pid, "task")).with_context(|| format!("no process {pid}"))? {
        let entry = entry?;
        let id = entry.file_name().to_string_lossy().parse()?;
        // A thread may end between the listing and this line.
        if let Ok(schedstat) = fs::read_to_string(entry.path().join("schedstat")) {
            let spent = schedstat
                .split_whitespace()
                .next()
                .and_then(|word| word.parse().ok());
            threads.insert(id, spent.unwrap_or(0));
        }
    }
    Ok(threads)
}

/// Resident memory, in bytes, counted page by page (the counters in `status` lag behind).
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    kilobytes(&read(pid, "smaps_rollup")?, "Rss:")
}

/// The highest resident memory since the start or [`reset_peak`], in bytes.
pub(crate) fn peak_bytes(pid: u32) -> Result<u64> {
    kilobytes(&read(pid, "status")?, "VmHWM:")
}

/// Lets [`peak_bytes`] start again from what is resident now.
pub(crate) fn reset_peak(pid: u32) -> Result<()> {
    fs::write(path(pid, "clear_refs"), "5").context("can't reset the peak memory")
}

/// Open files, sockets among them.
pub(crate) fn open_files(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(path(pid, "fd"))
        .context("can't list open files")?
        .count())
}

fn kilobytes(text: &str, field: &str) -> Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(field));
    let number = value.and_then(|value| value.split_whitespace().next());
    let number = number.ok_or_else(|| anyhow!("no {field} in /proc"))?;
    Ok(number.parse::<u64>()? * 1024)
}

fn read(pid: u32, file: &str) -> Result<String> {
    fs::read_to_string(path(pid, file)).with_context(|| format!("can't read {file} of {pid}"))
}

fn path(pid: u32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

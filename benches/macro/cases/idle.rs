//! Memory of clients that do nothing, and what is left of it when they have gone.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::args::Case;
use crate::figure::Sample;
use crate::lineup::Lineup;
use crate::process::{self, pause};
use crate::procfs::{open_files, resident_bytes};
use crate::proxy::{POOL_SIZE, Proxy, Setup};
use crate::report::Report;
use crate::stage::Stage;
use crate::wire::{Client, Login};

/// Clients that log in or query at the same time.
const THREADS: usize = 8;
/// Files that a proxy may open meanwhile for reasons of its own.
const FILES_SPARE: usize = POOL_SIZE + 20;
/// Memory counts as given back when it hasn't changed for so long.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// An allocator may keep it for ten seconds.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

pub(super) fn run(stage: &Stage, report: &mut Report) {
    // One round, as a second would begin with what the first left in the allocator.
    let setup = Setup::plain();
    let mut lineup = Lineup::start(Case::Idle, &setup, stage, report).without_direct();
    lineup.each(report, "idle clients", |proxy| {
        measure(proxy, stage.sizes.idle_clients)
    });
}

fn measure(proxy: &Proxy, counts: [usize; 2]) -> Result<Vec<Sample>> {
    let (pid, login) = (proxy.pid()?, proxy.login("bench"));
    let empty = resident_bytes(pid)?;
    let files = open_files(pid)?;
    let kilobytes_each = |clients: usize| -> Result<f64> {
        Ok(resident_bytes(pid)?.saturating_sub(empty) as f64 / 1024.0 / clients as f64)
    };
    let mut samples = vec![Sample::new(
        "no client yet: resident memory",
        "MB",
        megabytes(empty),
    )];
    let mut clients = Vec::new();
    for count in counts {
        clients.extend(log_in(&login, count - clients.len())?);
        let name = format!("{count} idle: memory per client");
        samples.push(Sample::new(name, "KB", kilobytes_each(count)?));
    }
    let [_, most] = counts;
    query_each(&mut clients)?;
    let name = format!("{most} idle after a query each: memory per client");
    samples.push(Sample::new(name, "KB", kilobytes_each(most)?));

    for client in clients {
        client.terminate()?;
    }
    process::retry(Duration::from_secs(20), || match open_files(pid)? {
        left if left <= files + FILES_SPARE => Ok(()),
        left => bail!("the proxy still has {left} files open, {files} before"),
    })?;
    let name = format!("{most} left: resident memory");
    samples.push(Sample::new(name, "MB", megabytes(settled(pid)?)));
    Ok(samples)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn log_in(login: &Login, count: usize) -> Result<Vec<Client>> {
    std::thread::scope(|scope| {
        let share = |thread| count / THREADS + usize::from(thread < count % THREADS);
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let many = move || (0..share(thread)).map(|_| Client::login(login)).collect();
                scope.spawn(many)
            })
            .collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().expect("a login panicked"));
        let clients: Result<Vec<Vec<Client>>> = joined.collect();
        Ok(clients?.into_iter().flatten().collect())
    })
}

fn query_each(clients: &mut [Client]) -> Result<()> {
    let share = clients.len().div_ceil(THREADS).max(1);
    std::thread::scope(|scope| {
        let query = |client: &mut Client| client.query("SELECT 1").map(drop);
        let threads: Vec<_> = clients
            .chunks_mut(share)
            .map(|chunk| scope.spawn(move || chunk.iter_mut().try_for_each(query)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a query panicked"))
    })
}

/// Resident memory once it has stopped falling.
fn settled(pid: u32) -> Result<u64> {
    let begin = Instant::now();
    let mut last = (resident_bytes(pid)?, Instant::now());
    while last.1.elapsed() < SETTLED_AFTER && begin.elapsed() < SETTLE_LIMIT {
        pause(Duration::from_millis(200));
        let now = resident_bytes(pid)?;
        if now + 100_000 < last.0 {
            last = (now, Instant::now());
        }
    }
    Ok(last.0)
}

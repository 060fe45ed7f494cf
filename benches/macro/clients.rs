//! Many clients on one thread, for loads that pgbench has no words for.
//!
//! Each repeats its script, one transaction after the other, without a pause. The window begins
//! after a warm-up, and what is measured is what ended in it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::figure::Sample;
use crate::procfs::{self, Cpu};
use crate::proxy::Proxy;
use crate::stage::Stage;
use crate::stats;
use crate::wire::{self, Client, message};

/// No answer takes longer; a proxy that hangs must not hang the bench.
const PATIENCE: Duration = Duration::from_mins(1);

/// What one client does.
pub(crate) trait Script: Send + 'static {
    /// Messages to send once, each part up to one ReadyForQuery.
    fn prepare(&self) -> Vec<Vec<u8>>;

    /// Appends the messages of one round trip of a transaction, up to one ReadyForQuery; breaks
    /// with the last one.
    fn write(&mut self, trip: usize, to: &mut Vec<u8>) -> ControlFlow<()>;

    /// Messages for the end, and a text that their answer has to contain: who loses state on the
    /// way is quick, and out of the competition.
    fn check(&self) -> (Vec<u8>, String);
}

/// How long the clients work before it counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WarmUp {
    /// At least this long …
    pub(crate) time: Duration,
    /// … and until this many transactions have ended …
    pub(crate) transactions: u64,
    /// … unless that takes longer than this.
    pub(crate) limit: Duration,
}

/// What the window has seen.
#[derive(Debug)]
pub(crate) struct Outcome {
    elapsed: Duration,
    /// None without a proxy.
    proxy_cpu: Option<Duration>,
    postgres_cpu: Duration,
    latencies_micros: Vec<u32>,
}

/// Shared by all clients of a run.
#[derive(Debug, Default)]
struct Phase {
    is_measured: AtomicBool,
    is_over: AtomicBool,
    transactions: AtomicU64,
}

struct Connection {
    socket: TcpStream,
    received: Vec<u8>,
}

/// Runs one client per script, and measures inside a window.
pub(crate) fn run<S: Script>(
    scripts: Vec<S>,
    warm_up: WarmUp,
    proxy: &Proxy,
    stage: &Stage,
) -> Result<Outcome> {
    let mut clients = Vec::new();
    for script in scripts {
        let mut client = Client::login(&proxy.login("bench"))?;
        for part in script.prepare() {
            client.send(&part)?;
            client.read_until_ready()?;
        }
        clients.push((client.into_socket()?, script));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let phase = Arc::new(Phase::default());
        let mut tasks = JoinSet::new();
        for (socket, script) in clients {
            socket.set_nonblocking(true)?;
            let connection = Connection {
                socket: TcpStream::from_std(socket)?,
                received: Vec::with_capacity(16 << 10),
            };
            tasks.spawn(repeat(connection, script, Arc::clone(&phase)));
        }
        let outcome = measure(&phase, warm_up, proxy, stage).await?;
        finish(tasks, outcome).await
    })
}

async fn measure(phase: &Phase, warm_up: WarmUp, proxy: &Proxy, stage: &Stage) -> Result<Outcome> {
    let begin = Instant::now();
    let is_warm = || {
        let elapsed = begin.elapsed();
        let transactions = phase.transactions.load(Ordering::Relaxed);
        elapsed > warm_up.time && (transactions >= warm_up.transactions || elapsed > warm_up.limit)
    };
    while !is_warm() {
        sleep(Duration::from_millis(20)).await;
    }
    let cpus = || -> Result<_> {
        let proxy = proxy.pid().map(Cpu::of).ok().transpose()?;
        Ok((proxy, procfs::of_children(stage.postgres.pid())?))
    };
    let before = cpus()?;
    let from = Instant::now();
    phase.is_measured.store(true, Ordering::Relaxed);
    sleep(stage.sizes.window).await;
    phase.is_over.store(true, Ordering::Relaxed);
    let elapsed = from.elapsed();
    let after = cpus()?;
    let spent = after.0.zip(before.0);
    Ok(Outcome {
        elapsed,
        proxy_cpu: spent.map(|(after, before)| after.since(&before).total),
        postgres_cpu: after.1.saturating_sub(before.1),
        latencies_micros: Vec::new(),
    })
}

async fn finish(mut tasks: JoinSet<Result<Vec<u32>>>, mut outcome: Outcome) -> Result<Outcome> {
    while let Some(ended) = tasks.join_next().await {
        let latencies = ended.context("a client panicked")??;
        if latencies.is_empty() {
            bail!("a client got through no transaction in the window");
        }
        outcome.latencies_micros.extend(latencies);
    }
    outcome.latencies_micros.sort_unstable();
    Ok(outcome)
}

/// One client, to the end; returns the latencies of its transactions in the window.
async fn repeat(
    mut connection: Connection,
    mut script: impl Script,
    phase: Arc<Phase>,
) -> Result<Vec<u32>> {
    let mut latencies_micros = Vec::new();
    let mut messages = Vec::new();
    while !phase.is_over.load(Ordering::Relaxed) {
        let begin = Instant::now();
        for trip in 0.. {
            messages.clear();
            let next = script.write(trip, &mut messages);
            connection.exchange(&messages).await?;
            if next.is_break() {
                break;
            }
        }
        phase.transactions.fetch_add(1, Ordering::Relaxed);
        if phase.is_measured.load(Ordering::Relaxed) && !phase.is_over.load(Ordering::Relaxed) {
            let micros = u32::try_from(begin.elapsed().as_micros());
            latencies_micros.push(micros.unwrap_or(u32::MAX));
        }
    }
    let (messages, expected) = script.check();
    let answer = connection.exchange(&messages).await?;
    if memchr::memmem::find(answer, expected.as_bytes()).is_none() {
        let answer = String::from_utf8_lossy(answer);
        bail!("expected {expected:?} at the end: {answer:?}");
    }
    connection.socket.write_all(&message(b'X', &[])).await?;
    Ok(latencies_micros)
}

impl Connection {
    /// Sends messages and waits for one ReadyForQuery; an ErrorResponse fails. Returns the answer.
    async fn exchange(&mut self, messages: &[u8]) -> Result<&[u8]> {
        self.socket.write_all(messages).await?;
        self.received.clear();
        let mut parsed = 0;
        loop {
            let read = timeout(PATIENCE, self.socket.read_buf(&mut self.received));
            if read.await.context("no answer")?? == 0 {
                bail!("connection ended");
            }
            while let Some((tag, body, end)) = split_message(&self.received, parsed) {
                match tag {
                    b'E' => bail!("server says: {}", wire::error_text(body)),
                    b'Z' => return Ok(&self.received),
                    _ => parsed = end,
                }
            }
        }
    }
}

/// Tag, body and end of the message that begins at `from`, when it is here whole.
fn split_message(bytes: &[u8], from: usize) -> Option<(u8, &[u8], usize)> {
    let (tag, rest) = bytes.get(from..)?.split_first()?;
    let length = usize::try_from(u32::from_be_bytes(*rest.first_chunk()?)).ok()?;
    Some((*tag, rest.get(4..length)?, from + 1 + length))
}

impl Outcome {
    /// CPU seconds per 100,000 transactions, of the proxy and of PostgreSQL.
    pub(crate) fn cpu_per_100k(&self) -> [Option<f64>; 2] {
        let per_100k =
            |time: Duration| time.as_secs_f64() / self.latencies_micros.len() as f64 * 1e5;
        [
            self.proxy_cpu.map(per_100k),
            Some(per_100k(self.postgres_cpu)),
        ]
    }

    /// All figures under one label.
    pub(crate) fn samples(&self, label: &str) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        let names = ["CPU", "PostgreSQL's CPU"];
        for (name, value) in names.iter().zip(self.cpu_per_100k()) {
            let name = format!("{label}: {name} per 100k transactions");
            samples.extend(value.map(|value| Sample::new(name, "s", value)));
        }
        let rate = self.latencies_micros.len() as f64 / self.elapsed.as_secs_f64();
        samples.push(Sample::new(format!("{label}: throughput"), "tps", rate));
        for (name, share) in [("p50", 0.50), ("p99", 0.99)] {
            let micros = stats::percentile(&self.latencies_micros, share);
            let micros = micros.context("no transactions")?;
            let name = format!("{label}: latency {name}");
            samples.push(Sample::new(name, "ms", f64::from(micros) / 1000.0));
        }
        Ok(samples)
    }
}

/// A Parse of one parameter of type integer.
pub(crate) fn parse(name: &str, sql: &str) -> Vec<u8> {
    let types = [0, 1, 0, 0, 0, 23];
    message(b'P', &[name.as_bytes(), &[0], sql.as_bytes(), &[0], &types])
}

/// Appends Bind, Execute and Sync of a named statement with parameters in text format.
pub(crate) fn execute(name: &str, parameters: &[&str], to: &mut Vec<u8>) {
    let mut values = (parameters.len() as u16).to_be_bytes().to_vec();
    for parameter in parameters {
        values.extend((parameter.len() as u32).to_be_bytes());
        values.extend(parameter.as_bytes());
    }
    // The unnamed portal; all formats text; all rows.
    to.extend(message(
        b'B',
        &[&[0], name.as_bytes(), &[0, 0, 0], &values, &[0, 0]],
    ));
    to.extend(message(b'E', &[&[0; 5]]));
    to.extend(message(b'S', &[]));
}

/// Appends a Query.
pub(crate) fn query(sql: &str, to: &mut Vec<u8>) {
    to.extend(message(b'Q', &[sql.as_bytes(), &[0]]));
}

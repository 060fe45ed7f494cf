//! Ten thousand tenants with a client each, over fifty servers: nobody is forgotten. Each tenant has
//! its own login at PostgreSQL, so nearly each transaction is one on a server made for it.
//!
//! PgBouncer has no limit of all tenants' servers and does not take part.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::fair::jain;
use crate::args::Case;
use crate::figure::Sample;
use crate::lineup::first_query;
use crate::process::pause;
use crate::procfs::{Cpu, resident_bytes};
use crate::proxy::{Kind, Proxy, Setup};
use crate::report::Report;
use crate::stage::Stage;
use crate::stats;
use crate::wire::{self, Client, message};

/// Servers of all tenants.
const SERVERS: usize = 50;
/// Threads that log in.
const THREADS: usize = 4;
/// No answer takes longer.
const PATIENCE: Duration = Duration::from_mins(5);
const START_LIMIT: Duration = Duration::from_mins(2);

pub(super) fn run(stage: &Stage, report: &mut Report) {
    if !stage.args.proxies.contains(&Kind::Pgusher) {
        return;
    }
    let ids: Vec<_> = (0..stage.sizes.tenants)
        .map(|number| format!("t{number:05}"))
        .collect();
    let names: Vec<_> = ids.iter().map(String::as_str).collect();
    let mut setup = Setup {
        pool_size: 2,
        server_budget: SERVERS,
        cluster_lines: format!("max_parallel_connects = 8\n{}\n", stage.args.cluster),
        ..Setup::with_tenants(&names)
    };
    for tenant in &mut setup.tenants {
        tenant.lines.push_str("query_wait_timeout = \"5m\"\n");
    }
    match measure(&setup, &names, stage) {
        Ok(samples) => report.add(Case::Crowd, Kind::Pgusher, samples),
        Err(error) => report.fail("Crowd", &error),
    }
}

fn measure(setup: &Setup, names: &[&str], stage: &Stage) -> Result<Vec<Sample>> {
    let mut proxy = Proxy::launch(Kind::Pgusher, setup, stage)?;
    first_query(&mut proxy, setup.worker(), START_LIMIT)?;
    let begin = Instant::now();
    let sockets = log_in(&proxy, names)?;
    let logins = begin.elapsed().as_secs_f64();
    let label = format!("{} tenants over {SERVERS} servers", names.len());
    let watch = Watch::start(stage)?;
    let cpu = Cpu::of(proxy.pid()?)?;
    let ended = rounds(sockets, Duration::from_secs(20))?;
    let spent = Cpu::of(proxy.pid()?)?.since(&cpu).total.as_secs_f64();
    let peak = watch.end()?;
    if peak > SERVERS {
        bail!("{peak} servers at the same time");
    }
    proxy.check_alive()?;
    let mut first: Vec<_> = ended.iter().map(|client| client.first_micros).collect();
    first.sort_unstable();
    let seconds = |share| -> Result<f64> {
        let micros = stats::percentile(&first, share).context("nobody was served")?;
        Ok(f64::from(micros) / 1e6)
    };
    let counts: Vec<_> = ended.iter().map(|client| client.count).collect();
    let sum: f64 = counts.iter().sum();
    let lasted = ended.iter().map(|client| client.lasted);
    let lasted = lasted.fold(0.0, f64::max);
    let megabytes = resident_bytes(proxy.pid()?)? as f64 / 1e6;
    let sample = |name: &str, unit, value| Sample::new(format!("{label}: {name}"), unit, value);
    Ok(vec![
        sample("logins", "/s", names.len() as f64 / logins),
        sample("first answer p50", "s", seconds(0.5)?),
        sample("first answer, last tenant", "s", seconds(1.0)?),
        sample("throughput", "tps", sum / lasted),
        sample("Jain's index", "", jain(&counts)),
        sample(
            "fewest transactions",
            "",
            counts.iter().copied().fold(f64::MAX, f64::min),
        ),
        sample(
            "most transactions",
            "",
            counts.iter().copied().fold(0.0, f64::max),
        ),
        sample("most servers", "", peak as f64),
        sample("CPU per transaction", "ms", spent * 1e3 / sum),
        sample("resident memory", "MB", megabytes),
    ])
}

fn log_in(proxy: &Proxy, names: &[&str]) -> Result<Vec<TcpStream>> {
    let share = names.len().div_ceil(THREADS);
    std::thread::scope(|scope| {
        let threads: Vec<_> = names
            .chunks(share)
            .map(|names| {
                scope.spawn(move || {
                    let login = |name: &&str| Client::login(&proxy.login(name))?.into_socket();
                    names.iter().map(login).collect::<Result<Vec<_>>>()
                })
            })
            .collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().expect("a login panicked"));
        let sockets: Result<Vec<_>> = joined.collect();
        Ok(sockets?.into_iter().flatten().collect())
    })
}

/// What one client got.
struct Served {
    first_micros: u32,
    count: f64,
    lasted: f64,
}

/// All clients at once, each one transaction after the other, for so long; then each ends its last one.
fn rounds(sockets: Vec<TcpStream>, time: Duration) -> Result<Vec<Served>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let begin = Instant::now();
        let mut tasks = JoinSet::new();
        for socket in sockets {
            socket.set_nonblocking(true)?;
            let socket = tokio::net::TcpStream::from_std(socket)?;
            tasks.spawn(tokio::time::timeout(PATIENCE, serve(socket, begin, time)));
        }
        let mut ended = Vec::new();
        while let Some(client) = tasks.join_next().await {
            ended.push(client?.context("a client was forgotten")??);
        }
        Ok(ended)
    })
}

async fn serve(
    mut socket: tokio::net::TcpStream,
    begin: Instant,
    time: Duration,
) -> Result<Served> {
    let query = message(b'Q', &[b"SELECT 1\0"]);
    let mut served = Served {
        first_micros: 0,
        count: 0.0,
        lasted: 0.0,
    };
    loop {
        socket.write_all(&query).await?;
        read_answer(&mut socket).await?;
        served.count += 1.0;
        if served.first_micros == 0 {
            served.first_micros = u32::try_from(begin.elapsed().as_micros())?;
        }
        if begin.elapsed() > time {
            served.lasted = begin.elapsed().as_secs_f64();
            return Ok(served);
        }
    }
}

/// Reads up to ReadyForQuery; an error fails.
async fn read_answer(socket: &mut tokio::net::TcpStream) -> Result<()> {
    loop {
        let (tag, length) = (socket.read_u8().await?, socket.read_u32().await?);
        let mut body = vec![0; (length as usize).saturating_sub(4)];
        socket.read_exact(&mut body).await?;
        match tag {
            b'E' => bail!("server says: {}", wire::error_text(&body)),
            b'Z' => return Ok(()),
            _ => {}
        }
    }
}

/// Looks at PostgreSQL meanwhile.
struct Watch {
    is_over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<usize>>,
}

impl Watch {
    fn start(stage: &Stage) -> Result<Self> {
        let mut client = Client::login(&stage.postgres.login())?;
        let is_over: Arc<AtomicBool> = Arc::default();
        let end = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut peak = 0;
            while !end.load(Ordering::Relaxed) {
                peak = peak.max(servers(&mut client)?);
                pause(Duration::from_millis(100));
            }
            Ok(peak)
        });
        Ok(Self { is_over, thread })
    }

    fn end(self) -> Result<usize> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watch panicked")
    }
}

/// Client connections of PostgreSQL but the one that asks.
fn servers(client: &mut Client) -> Result<usize> {
    let row = client.first_row(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
    )?;
    // A count of columns, a length, and the text.
    let text = row.get(6..).context("no count")?;
    Ok(std::str::from_utf8(text)?.parse()?)
}

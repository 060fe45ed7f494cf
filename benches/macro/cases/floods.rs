//! What a tenant does to its neighbours.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::pgbench::{Load, Mode, Running, Script};
use crate::process::{self, pause};
use crate::proxy::Proxy;
use crate::stage::Stage;
use crate::wire::{Client, Login, message};

/// Clients of a flood of queries.
const CLIENTS: u32 = 64;
/// Clients that log in, over and over; each waits for nothing.
const STORM_CLIENTS: usize = 4;
/// Clients that copy.
const COPY_CLIENTS: usize = 4;
/// Clients that begin a transaction and stay in it.
const IDLE_CLIENTS: usize = 1000;
/// Rows of a kilobyte each.
const ROWS: u64 = 250_000;

/// What a flood is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FloodName {
    /// 64 clients with queries that burn 20 ms of CPU
    Queries,
    /// 64 clients with point selects
    Selects,
    /// 64 clients with `pg_sleep(0.02)`
    Sleeps,
    /// Four threads that log in and out
    Logins,
    /// Four clients that COPY 250 MB out
    Copies,
    /// 1,000 clients that begin a transaction and stay
    Idle,
    /// 64 clients that ask for 250 MB and don't read
    Deaf,
}

impl FloodName {
    /// As the report has it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Queries => "20 ms queries",
            Self::Selects => "point selects",
            Self::Sleeps => "20 ms sleeps",
            Self::Logins => "a login storm",
            Self::Copies => "COPYs of 250 MB",
            Self::Idle => "idle transactions",
            Self::Deaf => "clients that don't read",
        }
    }
}

/// A way to flood.
#[derive(Clone, Debug)]
pub(super) enum Flood {
    /// Queries, as fast as they are answered.
    Queries(Script),
    /// Logins.
    Logins,
    /// COPYs of 250 MB.
    Copies,
    /// Transactions that stand idle: as many as are let.
    IdleTransactions,
    /// Queries of 250 MB whose answer nobody takes.
    Deaf,
}

/// A flood that runs; over when it is dropped.
#[derive(Debug)]
pub(super) enum Flowing {
    Queries(Running),
    Threads(Threads),
    Held(Vec<std::net::TcpStream>),
}

#[derive(Debug)]
pub(super) struct Threads {
    is_over: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    running: Vec<JoinHandle<()>>,
}

impl Flood {
    /// The one of this name; `slow` is a query that burns 20 ms of CPU.
    pub(super) fn named(name: FloodName, slow: &str) -> Self {
        match name {
            FloodName::Queries => Self::Queries(Script::Sql(slow.into())),
            FloodName::Selects => Self::Queries(Script::PointSelect),
            FloodName::Sleeps => Self::Queries(Script::Sql("SELECT pg_sleep(0.02);".into())),
            FloodName::Logins => Self::Logins,
            FloodName::Copies => Self::Copies,
            FloodName::Idle => Self::IdleTransactions,
            FloodName::Deaf => Self::Deaf,
        }
    }

    /// Starts it as this tenant, and waits until it is under way; it lasts at least so long.
    pub(super) fn start(
        &self,
        (proxy, tenant): (&Proxy, &str),
        seconds: u32,
        stage: &Stage,
    ) -> Result<Flowing> {
        let login = proxy.login(tenant);
        match self {
            Self::Queries(script) => {
                let load = Load {
                    script: script.clone(),
                    mode: Mode::Simple,
                    clients: CLIENTS,
                    rate: None,
                    seconds,
                };
                let mut running = load.start(proxy, tenant, stage)?;
                running.wait_until_busy()?;
                Ok(Flowing::Queries(running))
            }
            Self::Logins => Threads::start(STORM_CLIENTS, &login, |login| {
                Client::login(login)?.terminate()
            }),
            Self::Copies => Threads::start(COPY_CLIENTS, &login, copy),
            Self::IdleTransactions => hold(&login, IDLE_CLIENTS, "BEGIN; SELECT 1"),
            Self::Deaf => hold(&login, CLIENTS as usize, &wide("")),
        }
    }
}

fn wide(before: &str) -> String {
    format!("{before}SELECT repeat('x', 1000) FROM generate_series(1, {ROWS})")
}

fn copy(login: &Login) -> Result<()> {
    let mut client = Client::login_with_buffer(login, 256 << 10)?;
    client.query(&format!("COPY ({}) TO STDOUT", wide("")))?;
    client.terminate()
}

/// Clients that send a query and then nothing, and take nothing.
fn hold(login: &Login, count: usize, query: &str) -> Result<Flowing> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let mut client = Client::login(login)?;
        client.send(&message(b'Q', &[query.as_bytes(), &[0]]))?;
        held.push(client.into_socket()?);
    }
    // What they hold, they hold now.
    pause(Duration::from_millis(500));
    Ok(Flowing::Held(held))
}

impl Threads {
    /// Repeats something in threads; some refusals are the proxy's right, but not all.
    fn start(
        count: usize,
        login: &Login,
        once: impl Fn(&Login) -> Result<()> + Send + Clone + 'static,
    ) -> Result<Flowing> {
        let mut this = Self {
            is_over: Arc::default(),
            count: Arc::default(),
            running: Vec::new(),
        };
        for _ in 0..count {
            let (is_over, done) = (Arc::clone(&this.is_over), Arc::clone(&this.count));
            let (login, once) = (login.clone(), once.clone());
            this.running.push(std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    match once(&login) {
                        Ok(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
                        Err(_) => pause(Duration::from_millis(1)),
                    }
                }
            }));
        }
        let begin = Instant::now();
        process::retry(Duration::from_secs(30), || {
            if this.count.load(Ordering::Relaxed) == 0 {
                bail!("the flood does not flow");
            }
            Ok(())
        })?;
        // Those that take long are under way, too.
        pause(begin.elapsed().min(Duration::from_millis(200)));
        Ok(Flowing::Threads(this))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.running.drain(..) {
            // A thread that panicked has said so.
            drop(thread.join());
        }
    }
}

impl Flowing {
    /// How much of it there is in a second, over the time since `from`; `None`: that is not counted.
    pub(super) fn end(self, from: std::time::SystemTime) -> Result<Option<f64>> {
        let to = std::time::SystemTime::now();
        match self {
            Self::Queries(running) => {
                let seconds = to.duration_since(from)?.as_secs_f64();
                let count = running.finish()?.between(from, to)?.count();
                Ok(Some(count / seconds))
            }
            Self::Threads(threads) => {
                drop(threads);
                Ok(None)
            }
            Self::Held(held) => {
                for socket in held {
                    // It may be gone already.
                    drop(socket.shutdown(Shutdown::Both));
                }
                Ok(None)
            }
        }
    }
}

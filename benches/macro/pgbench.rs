//! `pgbench` as the load, and its transaction log as the source of counts and latencies.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::process::{self, Ending, Process};
use crate::proxy::Proxy;
use crate::stage::Stage;
use crate::stats;

/// The protocol of `-M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    Simple,
    Extended,
    Prepared,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
        }
    }
}

/// What each client does, over and over.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// `-S`: one select by primary key.
    PointSelect,
    /// This text.
    Sql(String),
}

/// A load to be put on a proxy.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) script: Script,
    pub(crate) mode: Mode,
    pub(crate) clients: u32,
    /// Transactions per second of all clients together; `None` is as fast as it goes.
    pub(crate) rate: Option<u32>,
    pub(crate) seconds: u32,
}

/// A load that runs.
#[derive(Debug)]
pub(crate) struct Running {
    process: Process,
    folder: PathBuf,
    seconds: u32,
}

/// The transactions of a load.
#[derive(Debug)]
pub(crate) struct Log {
    transactions: Vec<Transaction>,
}

#[derive(Clone, Copy, Debug)]
struct Transaction {
    end_micros: u64,
    latency_micros: u32,
}

/// Latencies of some transactions, sorted, in microseconds.
#[derive(Debug)]
pub(crate) struct Latencies(Vec<u32>);

impl Load {
    /// `-S` as fast as it goes, for a window of this length with some time around it.
    pub(crate) fn around(window: Duration, mode: Mode, clients: u32) -> Self {
        let seconds = window.as_secs_f64().ceil() as u32 + 1;
        Self {
            script: Script::PointSelect,
            mode,
            clients,
            rate: None,
            seconds,
        }
    }

    /// Starts it as this tenant.
    pub(crate) fn start(&self, proxy: &Proxy, tenant: &str, stage: &Stage) -> Result<Running> {
        let folder = stage.folder_for("pgbench")?;
        let login = proxy.login(tenant);
        let mut command = process::command(stage.postgres.pgbench());
        command.args([
            "-n",
            "-M",
            self.mode.name(),
            "-T",
            &self.seconds.to_string(),
        ]);
        command.args([
            "-c",
            &self.clients.to_string(),
            "-j",
            &self.clients.min(2).to_string(),
        ]);
        command
            .arg("--log")
            .arg(format!("--log-prefix={}", folder.join("tx").display()));
        if let Some(rate) = self.rate {
            command.args(["-R", &rate.to_string()]);
        }
        match &self.script {
            Script::PointSelect => command.arg("-S"),
            Script::Sql(sql) => {
                let file = folder.join("script.sql");
                fs::write(&file, sql)?;
                command.arg("-f").arg(file)
            }
        };
        command.args(["-h", "127.0.0.1", "-p", &login.address.port().to_string()]);
        command.args(["-U", &login.user, &login.database]);
        command.env("PGPASSWORD", &login.credential.key);
        command.env("PGSSLMODE", if login.tls { "require" } else { "disable" });
        let process = Process::start("pgbench", command, Ending::Kill, folder.join("output"))?;
        Ok(Running {
            process,
            folder,
            seconds: self.seconds,
        })
    }
}

impl Running {
    /// Waits until all clients have logged in and the first transactions stand in the log.
    pub(crate) fn wait_until_busy(&mut self) -> Result<()> {
        let Self {
            process, folder, ..
        } = self;
        let has_logged = || {
            let logs = log_files(folder)?;
            let is_filled = |log: &PathBuf| log.metadata().is_ok_and(|file| file.len() > 0);
            logs.iter()
                .any(is_filled)
                .then_some(())
                .context("no transaction yet")
        };
        process::retry_while(
            Duration::from_secs(30),
            || process.check_alive(),
            has_logged,
        )
    }

    /// Waits for its end.
    pub(crate) fn finish(self) -> Result<Log> {
        let logs = (self.folder.clone(), self.seconds);
        let limit = Duration::from_secs(u64::from(self.seconds) + 60);
        self.process.finish(limit)?;
        let mut transactions = Vec::new();
        for log in log_files(&logs.0)? {
            let text = fs::read_to_string(&log)?;
            transactions.extend(text.lines().filter_map(Transaction::parse));
            // A run writes hundreds of megabytes of them.
            fs::remove_file(&log)?;
        }
        if transactions.is_empty() {
            bail!("pgbench ended without one transaction");
        }
        Ok(Log { transactions })
    }
}

fn log_files(folder: &PathBuf) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("tx.") {
            files.push(entry.path());
        }
    }
    Ok(files)
}

impl Transaction {
    /// "client transaction latency script seconds microseconds …"; a latency that isn't a number
    /// is a failed or skipped transaction.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ').skip(2);
        let latency_micros = words.next()?.parse().ok()?;
        let seconds: u64 = words.nth(1)?.parse().ok()?;
        let micros: u64 = words.next()?.parse().ok()?;
        Some(Self {
            end_micros: seconds * 1_000_000 + micros,
            latency_micros,
        })
    }
}

impl Log {
    /// Those that ended from `from` to `to`.
    pub(crate) fn between(&self, from: SystemTime, to: SystemTime) -> Result<Latencies> {
        let micros = |time: SystemTime| {
            time.duration_since(UNIX_EPOCH)
                .map(|d| d.as_micros() as u64)
        };
        let window = micros(from)?..micros(to)?;
        let last = self
            .transactions
            .iter()
            .map(|transaction| transaction.end_micros)
            .max();
        if last.is_none_or(|last| last + 200_000 < window.end) {
            bail!("the load ended before the window did");
        }
        let inside = self
            .transactions
            .iter()
            .filter(|t| window.contains(&t.end_micros));
        Latencies::of(inside)
    }

    /// All of them.
    pub(crate) fn all(&self) -> Result<Latencies> {
        Latencies::of(self.transactions.iter())
    }
}

impl Latencies {
    fn of<'a>(transactions: impl Iterator<Item = &'a Transaction>) -> Result<Self> {
        let mut latencies: Vec<u32> = transactions.map(|t| t.latency_micros).collect();
        latencies.sort_unstable();
        if latencies.is_empty() {
            bail!("no transaction in the window");
        }
        Ok(Self(latencies))
    }

    pub(crate) fn count(&self) -> f64 {
        self.0.len() as f64
    }

    /// In milliseconds.
    pub(crate) fn percentile(&self, share: f64) -> Result<f64> {
        let micros = stats::percentile(&self.0, share).context("no transactions")?;
        Ok(f64::from(micros) / 1000.0)
    }
}

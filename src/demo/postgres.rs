//! A private PostgreSQL server on a loopback port.

use anyhow::{Context as _, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::time::sleep;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::{
    Interrupted,
    account::Account,
    binaries::Binaries,
    folder::{Folder, write_private},
    ports,
    sql::Target,
    stray,
    watchdog::{Ending, Guarded, Program},
};

/// The superuser.
pub(super) const SUPERUSER: &str = "postgres";

/// From the start of the process until it lets us in.
const START_DEADLINE: Duration = Duration::from_mins(1);

/// How often a server that ended by itself is started before that is an error.
const RESTART_ATTEMPTS: u32 = 3;

/// How often we knock while it starts.
const KNOCK_EVERY: Duration = Duration::from_millis(100);

/// Who may connect, how. Tenants reach what they hold CONNECT on, nobody else replicates.
const HBA: &str = "\
host replication pgusher_replica  127.0.0.1/32 scram-sha-256
host replication all              all          reject
host all         postgres         127.0.0.1/32 scram-sha-256
host all         +pgusher_tenants 127.0.0.1/32 scram-sha-256
host pgusher_registry pgusher_registry 127.0.0.1/32 scram-sha-256
";

const SETTINGS: &str = "\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 120
max_prepared_transactions = 0
hot_standby = on
wal_level = replica
wal_keep_size = '256MB'
shared_buffers = '64MB'
log_destination = 'stderr'
logging_collector = off
log_line_prefix = '%m [%p] %q%u@%d '
";

/// Everything that starting a server takes.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    pub(super) binaries: Binaries,
    pub(super) account: Account,
    pub(super) data: PathBuf,
    pub(super) log: PathBuf,
    pub(super) superuser_password: String,
}

/// A server that lets us in.
#[derive(Debug)]
pub(super) struct Server {
    launch: Launch,
    pub(super) port: u16,
    process: Guarded,
}

/// Makes the data directory `name`, unless it is there.
pub(super) async fn init(
    folder: &Folder,
    launch: &Launch,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if launch.data.exists() {
        return Ok(());
    }
    let log = folder.log("setup.log", &launch.account)?;
    let password_file = folder.path().join("superuser.password");
    write_private(&password_file, launch.superuser_password.as_bytes())?;
    launch.account.give(&password_file)?;
    let mut is_made = false;
    for locale in ["C.UTF-8", "C"] {
        folder.remove_dir("primary.new")?;
        let new = folder.path().join("primary.new");
        launch.account.make_private_dir(&new)?;
        let program = Program {
            path: launch.binaries.initdb(),
            args: vec![
                format!("--pgdata={}", new.display()),
                format!("--pwfile={}", password_file.display()),
                format!("--username={SUPERUSER}"),
                format!("--locale={locale}"),
                "--auth=scram-sha-256".into(),
                "--encoding=UTF8".into(),
                "--no-sync".into(),
            ],
            ending: Ending::Tool,
            account: &launch.account,
            dir: folder.path(),
            log: &log,
        };
        if Guarded::start(&program)?.finish(stop).await?.success() {
            is_made = true;
            break;
        }
    }
    fs::remove_file(&password_file)?;
    if !is_made {
        bail!("initdb failed:\n{}", log_tail(&log));
    }
    let new = folder.path().join("primary.new");
    fs::write(new.join("pg_hba.conf"), HBA)?;
    let mut settings = SETTINGS.to_owned();
    if folder.is_temporary() {
        settings += "fsync = off\n";
    }
    fs::write(new.join("postgresql.conf"), settings)?;
    fs::rename(&new, &launch.data)?;
    Ok(())
}

impl Launch {
    /// Starts the server, on the preferred port when it is free, and waits until it lets us in.
    /// A process that an earlier start left behind is ended first.
    pub(super) async fn start(
        self,
        preferred_port: Option<u16>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Server> {
        self.clear_remains().await?;
        let mut last_error = None;
        for attempt in 0..3 {
            let port = ports::pick(preferred_port.filter(|_| attempt == 0))?;
            let mut server = Server {
                process: self.spawn(port)?,
                launch: self.clone(),
                port,
            };
            match server.wait_until_ready(stop).await {
                Ok(()) => return Ok(server),
                Err(error) => {
                    server.end().await;
                    let is_race = !ports::is_free(port); // somebody was faster
                    last_error = Some(error);
                    if !is_race {
                        break;
                    }
                }
            }
        }
        Err(last_error.context("no attempt was made")?)
    }

    fn spawn(&self, port: u16) -> anyhow::Result<Guarded> {
        Guarded::start(&Program {
            path: self.binaries.postgres(),
            args: vec![
                "-D".into(),
                self.data.display().to_string(),
                "-p".into(),
                port.to_string(),
            ],
            ending: Ending::Server,
            account: &self.account,
            dir: &self.data,
            log: &self.log,
        })
    }

    async fn clear_remains(&self) -> anyhow::Result<()> {
        if !stray::clear(&self.data, Duration::from_secs(15)).await {
            bail!("processes of an earlier start hold {}", self.data.display());
        }
        // Nobody works there, so the pid inside may by now be anybody's.
        let pid_file = self.data.join("postmaster.pid");
        if Path::new("/proc/self").exists() && pid_file.exists() {
            fs::remove_file(pid_file)?;
        }
        Ok(())
    }
}

impl Server {
    /// Where the superuser gets in.
    pub(super) fn superuser(&self) -> Target<'_> {
        Target {
            port: self.port,
            user: SUPERUSER,
            password: &self.launch.superuser_password,
            database: "postgres",
        }
    }

    /// Waits until the process has ended by itself, and says how.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn exited(&mut self) -> String {
        match self.process.exited().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Starts it again after it ended by itself, on the same port; tries again when it is killed
    /// while it recovers.
    pub(super) async fn restart(self, stop: &CancellationToken) -> anyhow::Result<Self> {
        let (launch, port) = (self.launch.clone(), self.port);
        self.end().await;
        let mut attempts_left = RESTART_ATTEMPTS;
        loop {
            attempts_left -= 1;
            match launch.clone().start(Some(port), stop).await {
                Err(error) if attempts_left > 0 && !error.is::<Interrupted>() => {
                    tracing::warn!(%error, "PostgreSQL does not start, trying again");
                }
                outcome => return outcome,
            }
        }
    }

    /// Ends it: fast shutdown, harder when that takes too long. Waits until nothing is left.
    pub(super) async fn end(self) {
        let data = self.launch.data;
        self.process.end().await;
        if !stray::clear(&data, Duration::from_secs(1)).await {
            tracing::warn!(data = %data.display(), "server processes do not end");
        }
    }

    /// The last lines of its log.
    pub(super) fn log_tail(&self) -> String {
        log_tail(&self.launch.log)
    }

    async fn wait_until_ready(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        let target = Target {
            port: self.port,
            user: SUPERUSER,
            password: &self.launch.superuser_password,
            database: "postgres",
        };
        let log = &self.launch.log;
        tokio::select! {
            ready = until_in(&target) => {
                ready.with_context(|| format!("PostgreSQL does not answer:\n{}", log_tail(log)))
            }
            status = self.process.exited() => {
                bail!("PostgreSQL ended at once ({}):\n{}", status?, log_tail(log))
            }
            () = stop.cancelled() => Err(Interrupted.into()),
        }
    }
}

async fn until_in(target: &Target<'_>) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        match target.connect().await {
            Ok(client) => return answers(&client).await,
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => sleep(KNOCK_EVERY).await,
        }
    }
}

/// Whether it answers a query.
pub(super) async fn answers(client: &Client) -> anyhow::Result<()> {
    client.simple_query("SELECT 1").await?;
    Ok(())
}

fn log_tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let start = lines.len().saturating_sub(15);
    lines.get(start..).unwrap_or_default().join("\n")
}

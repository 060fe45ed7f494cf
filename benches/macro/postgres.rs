//! A private PostgreSQL, thrown away after the run.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::credential::Credential;
use crate::process::{self, Ending, Process};
use crate::wire::{Client, Login};

/// Settings that keep the disk and chance out of the measurement.
const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=200",
    "shared_buffers=256MB",
    "ssl=off",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=4GB",
    "checkpoint_timeout=1h",
    "autovacuum=off",
    "jit=off",
];

/// The account that PostgreSQL runs under when we are root, which it refuses to be.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) name: String,
    uid: u32,
    gid: u32,
}

impl Account {
    /// `None` when we aren't root; else `postgres`, or `nobody`.
    pub(crate) fn instead_of_root() -> Result<Option<Self>> {
        if fs::metadata("/proc/self")?.uid() != 0 {
            return Ok(None);
        }
        let passwd = fs::read_to_string("/etc/passwd")?;
        let accounts: Vec<Self> = passwd.lines().filter_map(Self::parse).collect();
        let find = |name| accounts.iter().find(|account| account.name == name);
        let found = find("postgres").or_else(|| find("nobody"));
        found
            .cloned()
            .map(Some)
            .context("no account postgres or nobody to run PostgreSQL under")
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let mut ids = fields.skip(1).map(|id| id.parse().ok());
        Some(Self {
            name,
            uid: ids.next()??,
            gid: ids.next()??,
        })
    }
}

/// A running server with database and role `bench`.
#[derive(Debug)]
pub(crate) struct Postgres {
    binaries: PathBuf,
    address: SocketAddr,
    pub(crate) version: String,
    process: Process,
}

impl Postgres {
    /// Makes a cluster in `folder`, starts it, and fills `bench` by `pgbench -i -s 10`.
    pub(crate) fn start(folder: &Path, account: Option<&Account>) -> Result<Self> {
        let this = Self::start_with(folder, account, SETTINGS)?;
        this.fill()?;
        Ok(this)
    }

    /// Makes a cluster in `folder` and starts it with these settings; `bench` is empty.
    pub(crate) fn start_with(
        folder: &Path,
        account: Option<&Account>,
        settings: &[&str],
    ) -> Result<Self> {
        let binaries = find_binaries()?;
        let data = folder.join("postgres");
        fs::create_dir(&data)?;
        if let Some(account) = account {
            chown(&data, Some(account.uid), Some(account.gid))?;
        }
        let mut initdb = Command::new(binaries.join("initdb"));
        initdb.args([
            "-A",
            "trust",
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
            "-D",
        ]);
        process::output(as_account(&mut initdb, account).arg(&data).current_dir("/"))?;

        let port = free_port()?;
        let mut server = process::command(binaries.join("postgres"));
        server
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string()])
            .current_dir("/");
        server.args(settings.iter().flat_map(|setting| ["-c", setting]));
        as_account(&mut server, account);
        let log = folder.join("postgres.log");
        let mut process = Process::start("PostgreSQL", server, Ending::Quit, log)?;
        let version = process::output(Command::new(binaries.join("postgres")).arg("--version"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let admin = login(address, "postgres", "postgres");
        let mut admin = process::retry_while(
            Duration::from_secs(30),
            || process.check_alive(),
            || Client::login(&admin),
        )?;
        admin.query("CREATE ROLE bench LOGIN")?;
        admin.query("CREATE DATABASE bench OWNER bench")?;
        let version = version.trim().to_owned();
        Ok(Self {
            binaries,
            address,
            version,
            process,
        })
    }

    fn fill(&self) -> Result<()> {
        let mut pgbench = Command::new(self.pgbench());
        pgbench.args(["-i", "-q", "-s", "10", "-h", "127.0.0.1", "-U", "bench"]);
        pgbench
            .args(["-p", &self.port().to_string(), "bench"])
            .env("PGSSLMODE", "disable");
        process::output(&mut pgbench).map(drop)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The postmaster, parent of all others.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The pgbench that belongs to the server.
    pub(crate) fn pgbench(&self) -> PathBuf {
        self.binaries.join("pgbench")
    }

    /// As the superuser, past every proxy.
    pub(crate) fn admin(&self, database: &str) -> Login {
        login(self.address, "postgres", database)
    }

    /// Past every proxy.
    pub(crate) fn login(&self) -> Login {
        login(self.address, "bench", "bench")
    }
}

fn login(address: SocketAddr, user: &str, database: &str) -> Login {
    let (user, database) = (user.to_owned(), database.to_owned());
    // PostgreSQL trusts everyone here; the credential stays unused.
    Login {
        address,
        user,
        database,
        credential: Credential::derive("", vec![], 1),
        tls: false,
    }
}

fn as_account<'a>(command: &'a mut Command, account: Option<&Account>) -> &'a mut Command {
    match account {
        Some(account) => command.uid(account.uid).gid(account.gid),
        None => command,
    }
}

/// `PGUSHER_PG_BIN`, then `pg_config`, then PATH, then where Debian puts them, newest first.
fn find_binaries() -> Result<PathBuf> {
    let has_all = |folder: &PathBuf| {
        ["initdb", "postgres", "pgbench"]
            .iter()
            .all(|name| folder.join(name).is_file())
    };
    if let Some(folder) = std::env::var_os("PGUSHER_PG_BIN").map(PathBuf::from) {
        if has_all(&folder) {
            return Ok(folder);
        }
        bail!(
            "PGUSHER_PG_BIN={} has no initdb, postgres and pgbench",
            folder.display()
        );
    }
    let mut candidates = Vec::new();
    if let Ok(folder) = process::output(Command::new("pg_config").arg("--bindir")) {
        candidates.push(PathBuf::from(folder.trim()));
    }
    candidates.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    let mut majors: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    let major = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    majors.sort_by_key(|path| std::cmp::Reverse(major(path)));
    candidates.extend(majors.iter().map(|path| path.join("bin")));
    let found = candidates.into_iter().find(has_all);
    found.context("no PostgreSQL with pgbench found: install one, or set PGUSHER_PG_BIN")
}

/// A port on loopback that nobody listens on now.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

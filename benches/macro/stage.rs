//! Everything that outlives a case: the folder, PostgreSQL, what was found, the sizes.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::args::{Args, Sizes};
use crate::postgres::{Account, Postgres};
use crate::proxy::{Kind, POOL_SIZE};
use crate::report::Environment;
use crate::{limits, pgbouncer, pgusher, process};

pub(crate) struct Stage {
    pub(crate) args: Args,
    pub(crate) sizes: Sizes,
    pub(crate) account: Option<Account>,
    pub(crate) pgbouncer: Option<pgbouncer::Found>,
    /// Ends before the folder goes: fields are dropped in this order.
    pub(crate) postgres: Postgres,
    folder: TempDir,
    folders: Cell<u32>,
}

impl Stage {
    pub(crate) fn set_up(args: Args) -> Result<Self> {
        if args.proxies.is_empty() {
            bail!("--proxies names none");
        }
        let wants_pgbouncer = args.proxies.contains(&Kind::Pgbouncer);
        let pgbouncer = wants_pgbouncer
            .then(pgbouncer::Found::by_script)
            .transpose()?;
        if args.wants_pgusher() && !pgusher::binary(&args).is_file() {
            bail!("no pgusher at {}", pgusher::binary(&args).display());
        }
        let folder = tempfile::Builder::new()
            .prefix("pgusher-bench-")
            .tempdir()?;
        process::remove_on_signal(folder.path().to_owned());
        // PostgreSQL and PgBouncer may run under another account.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let account = Account::instead_of_root()?;
        let postgres = Postgres::start(folder.path(), account.as_ref())
            .context("the private PostgreSQL did not start")?;
        let sizes = args.sizes();
        Ok(Self {
            args,
            sizes,
            account,
            pgbouncer,
            postgres,
            folder,
            folders: Cell::new(0),
        })
    }

    /// A new folder for the files of one process.
    pub(crate) fn folder_for(&self, name: &str) -> Result<PathBuf> {
        let number = self.folders.get();
        self.folders.set(number + 1);
        let path = self.folder.path().join(format!("{number}-{name}"));
        fs::create_dir(&path)?;
        Ok(path)
    }

    /// What a reader has to know about this run.
    pub(crate) fn environment(&self) -> Environment {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpus
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let cpu = cpu
            .unwrap_or("unknown")
            .trim_matches([' ', '\t', ':'])
            .to_owned();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
        let mut lines = vec![
            (
                "machine".into(),
                format!("{cores} cores, {cpu}, Linux {}", kernel.trim()),
            ),
            ("load before".into(), load),
            (
                "open files".into(),
                limits::open_files().unwrap_or(0).to_string(),
            ),
            ("PostgreSQL".into(), self.postgres.version.clone()),
        ];
        if let Some(found) = &self.pgbouncer {
            lines.push(("PgBouncer".into(), found.version.clone()));
        }
        if self.args.wants_pgusher() {
            let version = pgusher::version(&self.args).unwrap_or_else(|error| error.to_string());
            lines.push(("pgusher".into(), version));
        }
        lines.push((
            "settings".into(),
            format!(
                "transaction mode, pool size {POOL_SIZE} (settings, statements: 8), pgusher 2 workers, SCRAM-SHA-256 towards \
                 clients, trust and no TLS towards PostgreSQL, loopback TCP"
            ),
        ));
        lines.push(("sizes".into(), format!("{:?}", self.sizes)));
        Environment {
            lines,
            proxies: self.args.proxies.clone(),
        }
    }
}

//! Where PostgreSQL is installed.

use anyhow::{Context as _, anyhow, bail};
use std::{
    env, fs,
    path::{Path, PathBuf},
};
use tokio::process::Command;

use super::account::Account;

/// The oldest major version that the demo works with.
const OLDEST_MAJOR: u32 = 15;

const MISSING: &str = "no PostgreSQL server (15 or newer) found: run scripts/setup --postgres, \
     or point PGUSHER_PG_BIN to the folder that holds initdb and postgres";

/// A PostgreSQL installation.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    dir: PathBuf,
    /// Its major version.
    pub(super) major: u32,
}

impl Binaries {
    /// `PGUSHER_PG_BIN` decides alone; else `pg_config --bindir`, `PATH`, then the newest of
    /// `/usr/lib/postgresql/*/bin`. With `major` only that version will do.
    pub(super) async fn find(account: &Account, major: Option<u32>) -> anyhow::Result<Self> {
        if let Some(dir) = env::var_os("PGUSHER_PG_BIN").filter(|dir| !dir.is_empty()) {
            let dir = PathBuf::from(dir);
            let found = Self::at(&dir, account).await;
            let found = found.with_context(|| {
                format!("PGUSHER_PG_BIN={} does not do: run scripts/setup --postgres, which prints a folder that does", dir.display())
            })?;
            return match major {
                Some(major) if major != found.major => Err(anyhow!(
                    "the data was made by PostgreSQL {major}, but PGUSHER_PG_BIN has {}",
                    found.major
                )),
                _ => Ok(found),
            };
        }
        let mut last_error = None;
        for dir in candidates().await {
            match Self::at(&dir, account).await {
                Ok(found) if major.is_none_or(|major| major == found.major) => return Ok(found),
                Ok(_) => {}
                Err(error) => last_error = Some(error),
            }
        }
        match (last_error, major) {
            (_, Some(major)) => bail!(
                "the data was made by PostgreSQL {major}, which is not installed; \
                 set PGUSHER_PG_BIN or choose another --dir"
            ),
            (Some(error), None) => Err(error.context(MISSING)),
            (None, None) => bail!(MISSING),
        }
    }

    /// The server.
    pub(super) fn postgres(&self) -> PathBuf {
        self.dir.join("postgres")
    }

    /// What makes a data directory.
    pub(super) fn initdb(&self) -> PathBuf {
        self.dir.join("initdb")
    }

    async fn at(dir: &Path, account: &Account) -> anyhow::Result<Self> {
        let dir = fs::canonicalize(dir).with_context(|| format!("no folder {}", dir.display()))?;
        let postgres = dir.join("postgres");
        if !dir.join("initdb").is_file() {
            bail!("no initdb in {}", dir.display());
        }
        let mut command = Command::new(&postgres);
        command.arg("--version").current_dir("/");
        account.apply(&mut command);
        let output = command.output().await;
        let output = output.with_context(|| match account {
            Account::Own => format!("can't run {}", postgres.display()),
            Account::Other { name, .. } => {
                format!("user {name} can't run {}", postgres.display())
            }
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let major = parse_major(&text)
            .with_context(|| format!("{} --version says {text:?}", postgres.display()))?;
        if major < OLDEST_MAJOR {
            bail!("{} is version {major}, too old", postgres.display());
        }
        Ok(Self { dir, major })
    }
}

/// Folders that hold `initdb` and `postgres`, the best first.
async fn candidates() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output().await {
        let text = String::from_utf8_lossy(&output.stdout);
        dirs.push(PathBuf::from(text.trim()));
    }
    if let Some(path) = env::var_os("PATH") {
        dirs.extend(env::split_paths(&path));
    }
    let mut packaged: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let major = entry.file_name().to_str()?.parse().ok()?;
            Some((major, entry.path().join("bin")))
        })
        .collect();
    packaged.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    dirs.extend(packaged.into_iter().map(|(_, dir)| dir));
    dirs.retain(|dir| dir.join("postgres").is_file() && dir.join("initdb").is_file());
    dirs
}

/// `postgres (PostgreSQL) 15.8 (Debian …)`, `18beta1`, `17devel`.
fn parse_major(text: &str) -> Option<u32> {
    let version = text.split_once("(PostgreSQL)")?.1.trim_start();
    let end = version
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(version.len());
    version.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_every_form() {
        let major = |version: &str| parse_major(&format!("postgres (PostgreSQL) {version}"));
        assert_eq!(major("15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major("18beta1"), Some(18));
        assert_eq!(major("17devel"), Some(17));
        assert_eq!(parse_major("something else 15"), None);
    }
}

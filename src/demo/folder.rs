//! The demo's folder: data directories, certificate, `proxy.toml`, and what must stay the same
//! from one start to the next.

use anyhow::{Context as _, bail};
use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{account::Account, opaque::opaque, state::State, stray};

const STATE: &str = "demo.state.json";
const LOCK: &str = "demo.lock";
const TEMPORARY: &str = "pgusher-demo-";

/// A folder that only this process uses; a temporary one goes when this value is closed.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    is_temporary: bool,
    /// Locked as long as it is open.
    _lock: File,
}

impl Folder {
    /// Opens or makes the folder; without a path, a temporary one.
    pub(super) async fn open(path: Option<&Path>, account: &Account) -> anyhow::Result<Self> {
        let is_temporary = path.is_none();
        let path = if let Some(path) = path {
            path.to_owned()
        } else {
            remove_abandoned();
            env::temp_dir().join(format!("{TEMPORARY}{}", opaque(12)))
        };
        // Others may pass through to their own data directory when we are root, but not look.
        let mode = if *account == Account::Own {
            0o700
        } else {
            0o711
        };
        DirBuilder::new()
            .recursive(!is_temporary)
            .mode(mode)
            .create(&path)
            .with_context(|| format!("can't create {}", path.display()))?;
        let path = path.canonicalize()?;
        if !path.join(STATE).exists() && !is_unused(&path)? {
            bail!(
                "{} holds other files; choose an empty or a new folder",
                path.display()
            );
        }
        let lock = lock(&path)?
            .with_context(|| format!("another pgusher demo is using {}", path.display()))?;
        let folder = Self {
            path,
            is_temporary,
            _lock: lock,
        };
        account.can_enter(&folder.path).await?;
        Ok(folder)
    }

    /// Absolute.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing in it is worth an fsync.
    pub(super) fn is_temporary(&self) -> bool {
        self.is_temporary
    }

    /// A file that the servers' account may append to.
    pub(super) fn log(&self, name: &str, account: &Account) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        let opened = options.append(true).create(true).mode(0o600).open(&path);
        opened.with_context(|| format!("can't write {}", path.display()))?;
        account.give(&path)?;
        Ok(path)
    }

    /// What an earlier start left, if it got as far as to be used again.
    pub(super) fn load(&self) -> anyhow::Result<Option<State>> {
        let path = self.path.join(STATE);
        match fs::read(&path) {
            Ok(text) => {
                let state: State = serde_json::from_slice(&text)
                    .with_context(|| format!("{} is damaged", path.display()))?;
                Ok(state.is_provisioned.then_some(state))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
        }
    }

    /// Keeps it for the next start.
    pub(super) fn save(&self, state: &State) -> anyhow::Result<()> {
        write_private(&self.path.join(STATE), &serde_json::to_vec_pretty(state)?)
    }

    /// Removes a folder below this one, if it is there.
    pub(super) fn remove_dir(&self, name: &str) -> anyhow::Result<()> {
        let path = self.path.join(name);
        gone(fs::remove_dir_all(&path), &path)
    }

    /// Removes a temporary folder.
    pub(super) fn close(self) {
        if self.is_temporary
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "can't remove the folder");
        }
    }
}

/// Replaces a file at once, readable by us alone.
pub(super) fn write_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", opaque(6)));
    let new = path.with_file_name(name);
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(content)?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("can't write {}", path.display()))
}

/// Removes a file, if it is there.
pub(super) fn remove_file(path: &Path) -> anyhow::Result<()> {
    gone(fs::remove_file(path), path)
}

fn gone(removed: std::io::Result<()>, path: &Path) -> anyhow::Result<()> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn is_unused(path: &Path) -> anyhow::Result<bool> {
    let mut entries =
        fs::read_dir(path).with_context(|| format!("can't read {}", path.display()))?;
    Ok(entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK)))
}

/// The lock, or none when another process holds it.
fn lock(path: &Path) -> anyhow::Result<Option<File>> {
    let path = path.join(LOCK);
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let file = file.with_context(|| format!("can't write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("can't lock {}", path.display()))
        }
    }
}

/// Temporary folders of demos that were killed.
fn remove_abandoned() {
    let entries = fs::read_dir(env::temp_dir())
        .into_iter()
        .flatten()
        .flatten();
    for entry in entries {
        let is_ours = entry.file_name().to_string_lossy().starts_with(TEMPORARY);
        let path = entry.path();
        if !is_ours || entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
            continue;
        }
        // Not ours to lock: somebody else's. Without a lock file: just being made.
        if !path.join(LOCK).exists() || !matches!(lock(&path), Ok(Some(_))) {
            continue;
        }
        if stray::processes_in(&path).is_empty()
            && let Err(error) = fs::remove_dir_all(&path)
        {
            tracing::debug!(%error, path = %path.display(), "can't remove an abandoned folder");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_used_by_one_demo_and_holds_nothing_foreign() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("demo");
        let open = || Folder::open(Some(&path), &Account::Own);
        let first = open().await.unwrap();
        let error = open().await.unwrap_err().to_string();
        assert!(error.starts_with("another pgusher demo"), "{error}");
        first.close();
        assert!(path.exists(), "a named folder stays");
        fs::write(path.join("thesis.txt"), "precious").unwrap();
        let error = open().await.unwrap_err().to_string();
        assert!(error.contains("holds other files"), "{error}");
    }

    #[tokio::test]
    async fn a_temporary_folder_goes() {
        let folder = Folder::open(None, &Account::Own).await.unwrap();
        let path = folder.path().to_owned();
        assert!(path.exists());
        folder.close();
        assert!(!path.exists());
    }
}

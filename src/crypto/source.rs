//! Where the master keys come from.

use super::{Keyring, KeyringError};
use std::{
    io::{self, Read as _},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};
use zeroize::Zeroizing;

/// No keyring is longer.
const TEXT_BYTES_MAX: u64 = 64 * 1024;
/// How long the command may take.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(30);

/// Where the master keys come from. A command is never printed: it may hold a secret.
#[derive(Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file that only we can read.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// What a shell command prints: a key management service's client, for example.
    Command(String),
}

impl std::fmt::Display for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "the environment variable {name}"),
            Self::Command(_) => f.write_str("the output of secrets.master_key_command"),
        }
    }
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// Why there are no master keys. No variant holds a key.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It can't be read.
    #[error("the master key can't be read from {place}")]
    Read {
        /// From where.
        place: KeySource,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The variable is not set.
    #[error("the master key can't be read: the environment variable {0} is not set")]
    Unset(String),
    /// The command failed.
    #[error("secrets.master_key_command ended with {0}")]
    Command(ExitStatus),
    /// The command hangs.
    #[error("secrets.master_key_command did not end within 30 s")]
    Time,
    /// It is no keyring.
    #[error("{place}")]
    Keyring {
        /// From where.
        place: KeySource,
        /// What is wrong with it.
        #[source]
        source: KeyringError,
    },
}

impl KeySource {
    /// Reads the keys. Blocks, for a command up to 30 s.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn load(&self) -> Result<Keyring, SourceError> {
        let text = self.text()?;
        Keyring::parse(&text).map_err(|source| SourceError::Keyring {
            place: self.clone(),
            source,
        })
    }

    fn text(&self) -> Result<Zeroizing<String>, SourceError> {
        match self {
            Self::File(path) => {
                let file = std::fs::File::open(path);
                file.and_then(read).map_err(|error| self.unreadable(error))
            }
            Self::Environment(name) => std::env::var(name)
                .map(Zeroizing::new)
                .map_err(|_error| SourceError::Unset(name.clone())),
            Self::Command(command) => self.output(command),
        }
    }

    /// A command that hangs is left behind: the start fails, and with it the process.
    fn output(&self, command: &str) -> Result<Zeroizing<String>, SourceError> {
        let child = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| self.unreadable(error))?;
        let (ended, ends) = mpsc::channel();
        thread::spawn(move || ended.send(child.wait_with_output()).ok());
        let output = ends
            .recv_timeout(COMMAND_TIME_MAX)
            .map_err(|_elapsed| SourceError::Time)?
            .map_err(|error| self.unreadable(error))?;
        if !output.status.success() {
            return Err(SourceError::Command(output.status));
        }
        read(Zeroizing::new(output.stdout).as_slice()).map_err(|error| self.unreadable(error))
    }

    fn unreadable(&self, source: io::Error) -> SourceError {
        SourceError::Read {
            place: self.clone(),
            source,
        }
    }
}

fn read(from: impl io::Read) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    from.take(TEXT_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_a_file_or_a_command() {
        let line = Keyring::new_line(3).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        std::fs::write(&path, line.expose()).unwrap();
        assert_eq!(KeySource::File(path.clone()).load().unwrap().current(), 3);
        let command = format!("cat '{}'", path.display());
        assert_eq!(KeySource::Command(command).load().unwrap().current(), 3);
    }

    #[test]
    fn what_fails_is_said_without_the_key() {
        let failed = KeySource::Command("echo hunter2; exit 3".into()).load();
        assert!(matches!(failed, Err(SourceError::Command(_))));
        let unset = KeySource::Environment("PGUSHER_NO_SUCH_KEY".into()).load();
        assert!(matches!(unset, Err(SourceError::Unset(_))));
        let wrong = KeySource::Command("echo hunter2".into())
            .load()
            .unwrap_err();
        assert!(
            !format!("{wrong} {wrong:?}").contains("hunter2"),
            "{wrong:?}"
        );
        assert!(matches!(wrong, SourceError::Keyring { .. }));
        let missing = KeySource::File("/no/such/file".into()).load().unwrap_err();
        assert!(missing.to_string().contains("/no/such/file"));
    }
}

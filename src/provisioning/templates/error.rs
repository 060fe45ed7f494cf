//! Why templates could not be applied.

use crate::provisioning::{ProtectError, ProvisioningError};
use std::path::PathBuf;

/// Why templates could not be applied. What was applied before stays. No variant holds a secret;
/// PostgreSQL's words about a template may quote what stands in it.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The directory can't be read.
    #[error("the templates in {} can't be read", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that can't be a template. Nothing was applied.
    #[error("{}: {problem}", At(file, *line))]
    File {
        /// Which.
        file: PathBuf,
        /// Where in it, from 1.
        line: Option<usize>,
        /// What is wrong, and the way out.
        problem: String,
    },
    /// A file that was applied is another now. Nothing was applied.
    #[error(
        "{}: it was changed after it was applied; put it back, and write what is new into a file of a higher version",
        file.display()
    )]
    Changed {
        /// Which.
        file: PathBuf,
    },
    /// A file that was applied is gone. Nothing was applied.
    #[error("version {version} ({name}) was applied, and its file is gone: put it back")]
    Gone {
        /// Its version.
        version: i64,
        /// Its name.
        name: String,
    },
    /// PostgreSQL refused a statement: nothing of its file was applied.
    #[error("{}: {message} ({code})", At(file, Some(*line)))]
    Refused {
        /// Which.
        file: PathBuf,
        /// Where in it, from 1.
        line: usize,
        /// SQLSTATE.
        code: String,
        /// PostgreSQL's words, and the way out where we know it.
        message: String,
    },
    /// An earlier run ended so long ago that PostgreSQL has forgotten whether it committed.
    #[error(
        "nobody knows whether version {version} was applied: look, then delete its row in pgusher.template, or set its transaction to NULL"
    )]
    Forgotten {
        /// Its version.
        version: i64,
    },
    /// The tables of a template could not be protected: nothing of its file was applied.
    #[error("{}: {source}", file.display())]
    Protect {
        /// Which.
        file: PathBuf,
        /// Why.
        source: ProtectError,
    },
    /// The cluster.
    #[error(transparent)]
    Provisioning(#[from] ProvisioningError),
}

impl TemplateError {
    /// What PostgreSQL said, if it was that.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            Self::Protect { source, .. } => source.code(),
            Self::Provisioning(error) => error.code(),
            _ => None,
        }
    }
}

struct At<'a>(&'a PathBuf, Option<usize>);

impl std::fmt::Display for At<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.1 {
            Some(line) => write!(f, "{}:{line}", self.0.display()),
            None => write!(f, "{}", self.0.display()),
        }
    }
}

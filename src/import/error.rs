//! Why nothing could be imported.

use crate::{control::MintError, registry::RegistryError};
use std::{io, path::PathBuf};

/// Why nothing (more) was imported. No variant holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file can't be read.
    #[error("can't read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The `auth_file` can't be read.
    #[error("can't read the auth_file {}; give another one: --userlist FILE", path.display())]
    Userlist {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not of its form.
    #[error("{spot}: {problem}")]
    Syntax {
        /// File and line.
        spot: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Something in it can't be, in words.
    #[error("{0}")]
    Refused(String),
    /// Two things would get one tenant id.
    #[error(
        "{first} and {second} would both be the tenant {id:?}; give one of them another id: --id NAME=ID"
    )]
    Collision {
        /// The id.
        id: String,
        /// Who has it.
        first: String,
        /// Who would get it as well.
        second: String,
    },
    /// No id can be made of a name.
    #[error("no tenant id can be made of {name:?}: {problem}; give it one: --id NAME=ID")]
    Id {
        /// The name.
        name: String,
        /// Why not.
        problem: crate::tenant::IdError,
    },
    /// The system has no randomness for a new key.
    #[error("no key can be made")]
    Key(#[from] MintError),
    /// The store that is read does not answer, or has other tables.
    #[error("can't read the tenants from --from")]
    Source(#[source] sqlx::Error),
    /// Our registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

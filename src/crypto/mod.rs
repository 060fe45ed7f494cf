//! Secrets at rest: sealed with AES-256-GCM under a master key that never stands beside them.
//!
//! A [`Keyring`] holds the master keys, the newest of which seals. What is [`Sealed`] says which key
//! opens it, and opens only for the [`Purpose`] that it was sealed for: a row copied to another
//! tenant or column is of no use there. Losing the key loses the secrets; nothing else opens them.

mod keyring;
mod seal;
mod source;

pub use keyring::{Keyring, KeyringError};
pub use seal::{OpenError, Purpose, SealError, Sealed};
pub use source::{KeySource, SourceError};

//! Taking tenants over from what served them before: PgBouncer's files, Fineract's and UltraCore's
//! tables.
//!
//! What is read is kept as it is, under our names. What can't be taken over is told by name and with
//! the reason: nothing is passed over in silence. [`pgbouncer`] gives the text of a `proxy.toml`;
//! [`fineract`] and [`ultracore`] write rows of the registry.

mod error;
mod ids;
mod ini;
mod keys;
mod note;
pub mod pgbouncer;
mod sealed;
mod userlist;

pub use error::ImportError;
pub use note::Note;

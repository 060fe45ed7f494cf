//! Taking tenants over from what served them before: PgBouncer's files, Fineract's and UltraCore's
//! tables.
//!
//! What is read is kept as it is, under our names. What can't be taken over is told by name and with
//! the reason: nothing is passed over in silence. [`pgbouncer`] gives the text of a `proxy.toml`;
//! [`fineract()`] and [`ultracore()`] write rows of the registry, and can be run again: a tenant that
//! is there with the same facts is passed over, one with others is refused.

mod error;
mod facts;
mod fineract;
mod ids;
mod ini;
mod keys;
mod mapping;
mod note;
pub mod pgbouncer;
mod place;
mod sealed;
mod source;
mod store;
mod ultracore;
mod userlist;

pub use error::ImportError;
pub use fineract::{Wanted, fineract};
pub use note::Note;
pub use store::{Keys, Outcome, Report, Tenant};
pub use ultracore::ultracore;

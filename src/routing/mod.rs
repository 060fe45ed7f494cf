//! Where a statement may run: on the primary alone, or on a hot standby as well.
//!
//! [`Intents`] reads a text once, with PostgreSQL's own grammar, and keeps what it asks for
//! ([`Intent`]); a [`Catalogue`] of the database says what the names in it are; both together make a
//! [`Verdict`]. What is not known to be a read goes to the primary. It is about right answers, not
//! about protection: a standby refuses what writes by itself (25006).
//!
//! No I/O, and no policy beyond the verdict.

mod cache;
mod catalogue;
mod catalogue_sql;
mod command;
mod intent;
mod names;
mod space;
mod verdict;
mod walk;
mod walk_json;

#[cfg(test)]
mod tests;

pub use cache::Intents;
pub use catalogue::{Builtins, Catalogue, CatalogueError, FACTS_MAX, Fact};
pub use catalogue_sql::{Reach, SIGHT, Sight, builtins_sql, catalogue_sql};
pub use command::TEXT_BYTES_MAX;
pub use intent::Intent;
pub use space::{Space, space};
pub use verdict::{Mode, Reason, Target, Transaction, Verdict};

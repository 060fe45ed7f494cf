//! Makes, changes, verifies and removes a tenant's place in PostgreSQL: one file a tier.
//!
//! What is made is told by a [`Place`], whose names were chosen before: opaque, never derived from
//! what a tenant says. Everything is idempotent: run again after a `kill -9` at any step, it goes on.

mod place;
mod slots;

pub use place::{Admin, Hole, Place, Profile, Variant};
pub use slots::{forget_slot_key, prepare_slots};

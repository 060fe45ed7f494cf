//! Makes, changes, verifies and removes a tenant's place in PostgreSQL: one file a tier.
//!
//! What is made is told by a [`Place`], whose names were chosen before: opaque, never derived from
//! what a tenant says. Everything is idempotent: run again after a `kill -9` at any step, it goes on.

mod admin;
mod attacks;
mod attempts;
mod audit;
mod canary;
mod cluster;
mod database;
mod error;
mod harden;
mod locks;
mod logins;
mod make;
mod names;
mod open;
mod patience;
mod place;
mod plan;
mod protect;
mod remove;
mod report;
mod row;
mod rows;
mod schema;
mod shared;
mod slots;
mod storage;
pub mod templates;
mod text;
mod verify;
mod verify_slots;
mod visit;

pub use cluster::{harden_cluster, harden_databases};
pub use error::ProvisioningError;
pub use locks::{LockWatch, Trespass};
pub use logins::{let_in, lock_out, lock_out_of_standby, repair, set_passwords};
pub use make::make;
pub use names::{TOKEN_CHARS, is_token, new_token};
pub use open::OpenTransactions;
pub use place::{Admin, Hole, Place, Profile, Variant};
pub use plan::{Plan, Step};
pub use protect::{Obstacle, ProtectError, Step as ProtectStep, plan_protection, protect};
pub use remove::unmake;
pub use report::{Check, Outcome, Report};
pub use rows::{SAMPLE_BYTES, Share, row_sizes};
pub use shared::prepare_database;
pub use slots::{forget_slot_key, make_slots, prepare_slots};
pub use storage::{database_sizes, schema_sizes};
pub use verify::{verify, verify_cluster};
pub use verify_slots::{try_in_slots, verify_in_slots};

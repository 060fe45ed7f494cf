//! Whether any client ever sees another client's session state, or loses its own.
//!
//! Many clients of one tenant share a small pool in transaction mode. Each follows a random script
//! of its own (settings, prepared statements, temporary tables, held cursors, advisory locks,
//! notifications, roles, sequences, state that functions hide, cancels, sudden ends) while servers
//! are killed under them, and holds every answer against a model of what a connection of its own
//! would answer. At the end nothing of theirs may be left.
//!
//! The scripts follow from a seed; how they interleave does not. By default a run is bounded by its
//! count of steps:
//!
//! - `PGUSHER_ORACLE_SECONDS=300`: runs so long instead;
//! - `PGUSHER_ORACLE_SEED=7`: other scripts;
//! - `PGUSHER_ORACLE_WITHOUT=startup,discard,kills`: without these, or without acts by their names;
//! - `PGUSHER_TEST_DIRECT=1`: without the proxy, which holds the model itself against PostgreSQL.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::exit,
    clippy::print_stdout,
    unreachable_pub,
    dead_code,
    reason = "a test ends when something is not as it should be"
)]

#[allow(unused_imports, reason = "the other tests use more of it")]
#[path = "../it/harness/mod.rs"]
mod harness;

mod actor;
mod acts;
mod aftermath;
mod chance;
mod ending;
mod hearing;
mod model;
mod post;
mod reading;
mod run;
mod setting;
mod setup;
mod statement;
mod text;
mod world;

use run::Run;

#[test]
fn no_client_sees_anothers_state_in_a_pool_of_four() {
    Run::with_pool_size(4).check();
}

#[test]
fn no_client_sees_anothers_state_in_a_pool_of_ten() {
    Run::with_pool_size(10).check();
}

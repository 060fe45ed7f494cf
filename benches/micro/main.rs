//! The micro bench: time and allocations of the pieces of the hot path, one by one.
//!
//! `cargo bench --bench micro`, or `cargo bench --bench micro -- relay` for a part of it. Figures
//! are for comparing two versions on one machine; what users feel is measured by the macro bench.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a bench ends when something is not as it should be"
)]

mod fixture;
mod lane;
mod login;
mod pool;
#[path = "../../tests/allocations/postgres.rs"]
mod postgres;
mod relay;
mod routing;
mod session;
mod wire;

/// As in the program, and counted.
#[global_allocator]
static ALLOCATOR: divan::AllocProfiler<tikv_jemallocator::Jemalloc> =
    divan::AllocProfiler::new(tikv_jemallocator::Jemalloc);

fn main() {
    divan::main();
}

//! The `pgusher` command.

use std::process::ExitCode;

/// Buffers and sessions come and go in tens of thousands, on several threads, for weeks: jemalloc
/// gives memory back and doesn't fragment.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    pgusher::cli::main()
}

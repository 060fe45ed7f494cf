//! Tenants without a login of their own, served in turn through slots.

mod crowd;
mod forging;
mod handover;
mod held;
mod leftovers;
mod readers;
mod resets;
mod rows;
mod sessions;
mod stage;
mod verifying;

use stage::{Rows, Stage, ids, token};

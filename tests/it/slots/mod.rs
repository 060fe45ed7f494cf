//! Tenants without a login of their own, served in turn through slots.

mod crowd;
mod forging;
mod handover;
mod leftovers;
mod rows;
mod sessions;
mod stage;

use stage::{Rows, Stage, ids, token};

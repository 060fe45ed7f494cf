//! What a tenant, and each of its keys, may do at the same time, in a second and in an hour ([`Caps`]).
//!
//! A transaction takes a place in two gates before it gets a server, its key's and its tenant's, in this
//! order; where one is full it waits in a queue. Before that, rates have it wait a little, or refuse it.
//! What cannot be known before, bytes, is charged afterwards. Nothing is counted where nothing is limited.
//! A tenant's month and trial come before all of that; the month is counted in [`crate::usage`].
//!
//! [`Caps`]: crate::tenant::Caps

mod forgetful;
mod gate;
mod limiter;
mod meter;
mod quota;
mod refusals;
mod restraints;

pub use forgetful::Forgetful;
pub use gate::Slot;
pub use quota::{running_out, trial_ends, trial_over, used_up};
pub use restraints::{Awaited, Awaiting, Limiters, Restraints, Slots};

//! Every client that is logged in, as the rest of the process sees it.
//!
//! A session owns its streams and buffers alone, in its task. What others may do to it goes
//! through its [`SessionHandle`]: give it an [`Order`], cancel its statement, read its counters.
//! The [`watchdog`] holds timeouts against all handles in one sweep, so that no statement needs a
//! timer of its own.

mod cancel;
mod handle;
mod pass;
mod predecessors;
mod registry;
mod stall;
pub mod watchdog;

pub use cancel::{CancelOutcome, cancel};
pub use handle::{Activity, Order, SessionHandle, State};
pub use pass::Pass;
pub use predecessors::{CancelDoor, PREDECESSORS_MAX, Predecessors};
pub use registry::{Sessions, Totals};
pub use stall::Stall;

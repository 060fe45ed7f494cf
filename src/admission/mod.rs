//! From [`crate::auth::Authenticated`] to [`Admitted`]: is there room for one more client?
//!
//! Three counts, each with its limit: the process, the tenant, the key. A refusal is 53300 and
//! names the limit. A place is given back when its guard is dropped, and only then. A key may also
//! have a limit of new connections in an hour (53400).

mod counts;

pub use counts::{Admission, Admitted, Entered, Full, Quotas};

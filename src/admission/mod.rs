//! From [`crate::auth::Authenticated`] to [`Admitted`]: is there room for one more client?
//!
//! Three counts, each with its limit: the process, the tenant, the key. A refusal is 53300 and
//! names the limit. A place is given back when its guard is dropped, and only then. A key may also
//! have a limit of new connections in an hour (53400). Who held up other tenants with a lock, and did
//! so again, is kept out for a while ([`Bars`], 53400), and so is a
//! tenant whose [`trial`] is over.

mod bars;
mod counts;
pub mod trial;

pub use bars::Bars;
pub use counts::{Admission, Admitted, Entered, Full, Quotas};

//! Server connections, lent for a transaction.
//!
//! One [`TenantPool`] for each tenant and scope, made at the first login and dropped when nobody
//! uses it. Inside is a deadpool: it keeps the idle servers (last used first out) and serves the
//! waiting clients in order. Around it stands what deadpool leaves open: a [`Checkout`] that is
//! dropped without [`Checkout::release`] closes its server, and all pools of a cluster share one
//! [`Budget`] of server connections.

mod budget;
mod checkout;
mod closed;
mod dialer;
mod idle_slot;
mod inside;
mod janitor;
mod known;
mod lanes;
mod lending;
mod pids;
mod pools;
mod replicas;
mod rota;
mod running;
mod slots;
mod split;
mod surveyed;
mod tenant_pool;
mod topologies;

pub use budget::Budget;
pub use checkout::{Checkout, CheckoutError};
pub use janitor::run as janitor;
pub use known::PinPlace;
pub use lanes::{Home, Lane, Lanes};
pub use pools::Pools;
pub use replicas::{Choice, Kept, ReplicaPool, Replicas};
pub use rota::Rota;
pub use running::{Bound, Granted, Load, Refused, Run, Running};
pub use split::{Split, Why};
pub use tenant_pool::{Occupancy, TenantPool};
pub use topologies::Lost;

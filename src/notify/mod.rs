//! LISTEN in transaction mode: one listener connection for all sessions of a pool.
//!
//! A session listens on its server first, so that PostgreSQL's own rules hold (at commit, not after
//! a rollback). Behind the transaction its channels move here: the [`Hub`] listens to them on a
//! connection of its own and hands notifications to every [`Subscription`], in PostgreSQL's order.
//! A marker that both connections hear cuts the two streams at the same place: nothing is lost or
//! told twice.

mod hub;
mod link;
mod subscription;

pub use hub::{Cut, Dial, Hub, HubError, Lender, MARKER_CHANNEL};
pub use subscription::{Channels, Event, Subscription};

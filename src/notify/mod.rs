//! LISTEN for many sessions over one connection: the shared listener of a pool.
//!
//! ```text
//!  PostgreSQL ──one connection──▶ Hub ──▶ Subscription (queue) ──▶ session
//!                                  │  ──▶ Subscription (queue) ──▶ session
//!                                  └─ Registry: who has which channel
//! ```
//!
//! A session that listens holds a [`Subscription`] and no server. PostgreSQL gives the
//! notifications of a database to every listener in the same order, the order of commits; a
//! *marker*, a notification that the hub sends to itself, is a point in that order that two
//! connections can both see. Everything exact here rests on markers:
//!
//! - **A channel moves** from a session's server to the hub at a [`Cut`]: the server's
//!   notifications count up to that marker, the hub's behind it. None is lost, none comes twice.
//! - **A fence** is a marker's round trip: what was committed before it is in the queue then.
//!
//! Nothing waits without a bound: a queue that overflows ends in [`Event::Lagged`], a lost
//! connection is made again and told as [`Event::Interrupted`], a request ends at its deadline.

mod batch;
mod bounds;
mod channel;
mod error;
mod hub;
mod link;
mod listener;
mod message;
mod queue;
mod registry;
mod subscription;

pub use bounds::Bounds;
pub use channel::Channels;
pub use error::HubError;
pub use hub::{Dial, Hears, Hub, Lender};
pub use message::{Cut, MARKER_CHANNEL, Notification, is_marker};
pub use queue::Event;
pub use subscription::Subscription;

//! What operators see: logs on stderr, metrics over HTTP. No policy, and nothing per message.

pub mod logs;
pub mod metrics;
pub mod names;

pub use metrics::{Collect, Metrics};

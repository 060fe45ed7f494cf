//! What operators see: logs on stderr, metrics over HTTP. No policy, and nothing per message.

pub mod logs;
pub mod metrics;
pub mod names;
mod text;

pub use metrics::{Collect, Metrics};
pub use text::{Family, Kind, Text};

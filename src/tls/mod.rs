//! TLS towards clients and towards PostgreSQL, and what SCRAM binds to.

mod end_point;
mod server;
mod upstream;

pub use end_point::peer_end_point;
pub use server::{HttpTls, ServerTls, TlsError, TlsFiles, is_postgresql};
pub use upstream::{connector, verifying};

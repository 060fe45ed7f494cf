//! pgusher: a PostgreSQL proxy that routes by tenant.

pub mod net;
pub mod pool;
pub mod sessions;
pub mod tenant;
pub mod tls;
pub mod upstream;
pub mod wire;

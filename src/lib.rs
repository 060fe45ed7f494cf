//! pgusher: a PostgreSQL proxy that routes by tenant.

pub mod net;
pub mod tenant;
pub mod wire;

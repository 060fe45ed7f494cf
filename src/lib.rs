//! pgusher: a PostgreSQL proxy that routes by tenant.

pub mod config;
pub mod tenant;

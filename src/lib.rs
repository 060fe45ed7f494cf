//! pgusher: a PostgreSQL proxy that routes by tenant.

pub mod api;
pub mod config;
pub mod telemetry;
pub mod tenant;

//! pgusher: a PostgreSQL proxy that routes by tenant.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod telemetry;
pub mod tenant;

//! pgusher: a PostgreSQL proxy that routes by tenant.

pub mod admission;
pub mod api;
pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod control;
pub mod crypto;
pub mod demo;
pub mod frontend;
pub mod import;
pub mod net;
pub mod notify;
pub mod pool;
pub mod provisioning;
pub mod registry;
pub mod relay;
pub mod routing;
pub mod sessions;
pub mod sql;
pub mod telemetry;
pub mod tenant;
pub mod tls;
pub mod topology;
pub mod upstream;
pub mod wire;

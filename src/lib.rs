//! pgusher: a PostgreSQL proxy that routes by tenant.

pub mod app;
pub mod demo;
pub mod tenant;

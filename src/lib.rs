//! pgusher: a PostgreSQL proxy that routes by tenant.

pub mod tenant;

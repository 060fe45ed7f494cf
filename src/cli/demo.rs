//! `pgusher demo`: its arguments.

use clap::Args;
use std::path::PathBuf;

/// Start a private PostgreSQL with tenants and a proxy in front of it, to try things out
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Keep everything in this directory; default: a temporary one, removed at the end
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Write addresses, tenants and their URLs to this file once everything answers
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Port of the proxy; default: a free one
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
}

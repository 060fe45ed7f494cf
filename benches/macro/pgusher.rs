//! pgusher: its configuration and its start.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::args::Args;
use crate::postgres::free_port;
use crate::process::{self, Ending, Process};
use crate::proxy::Setup;
use crate::stage::Stage;

/// Relaying threads.
const WORKERS: usize = 2;

/// The one named on the command line, or the one that cargo built along with this bench.
pub(crate) fn binary(args: &Args) -> PathBuf {
    args.pgusher
        .clone()
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_pgusher")))
}

/// What it calls itself.
pub(crate) fn version(args: &Args) -> Result<String> {
    let text = process::output(Command::new(binary(args)).arg("--version"))?;
    Ok(text.trim().to_owned())
}

/// Starts it; returns its port, too.
pub(crate) fn launch(setup: &Setup, stage: &Stage) -> Result<(u16, Process)> {
    let port = free_port()?;
    let folder = stage.folder_for("pgusher")?;
    let file = folder.join("proxy.toml");
    std::fs::write(&file, config(setup, stage.postgres.port(), port)?)?;
    let mut command = process::command(binary(&stage.args));
    command.arg("serve").arg("--config").arg(&file);
    let log = folder.join("log");
    Ok((port, Process::start("pgusher", command, Ending::Kill, log)?))
}

fn config(setup: &Setup, server_port: u16, port: u16) -> Result<String> {
    let mut toml = String::new();
    write!(
        toml,
        "[proxy]\nlisten = \"127.0.0.1:{port}\"\nworkers = {WORKERS}\n\
         max_client_connections = 12000\nlog_level = \"warn\"\n"
    )?;
    if let Some(made) = &setup.certificate {
        let (certificate, key) = (made.certificate.display(), made.key.display());
        writeln!(
            toml,
            "tls_cert = \"{certificate}\"\ntls_key = \"{key}\"\ntls_mode = \"allow\""
        )?;
    }
    write!(
        toml,
        "\n[[clusters]]\nname = \"main\"\nprimary = \"postgres://127.0.0.1:{server_port}\"\n\
         max_server_connections = {}\n{}",
        setup.server_budget, setup.cluster_lines
    )?;
    for tenant in &setup.tenants {
        write!(
            toml,
            "\n[[tenants]]\nid = \"{}\"\ncluster = \"main\"\ntier = \"database\"\n\
             database = \"bench\"\nrole = \"bench\"\npool_mode = \"transaction\"\n\
             pool_size = {}\nmax_client_connections = 12000\n\
             {}keys = [{{ verifier = \"{}\" }}]\n",
            tenant.id, setup.pool_size, tenant.lines, tenant.verifier
        )?;
    }
    Ok(toml)
}

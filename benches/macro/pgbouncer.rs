//! PgBouncer: its configuration and its start.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::postgres::free_port;
use crate::process::{self, Ending, Process};
use crate::proxy::Setup;
use crate::stage::Stage;

/// The command that runs it, and the version that it names.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    words: Vec<String>,
    pub(crate) version: String,
}

impl Found {
    /// Asks `benches/pgbouncer.sh`, which may download one.
    pub(crate) fn by_script() -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/pgbouncer.sh");
        let line = process::output(Command::new("sh").arg(script))?;
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let (program, rest) = words
            .split_first()
            .context("pgbouncer.sh printed nothing")?;
        let version = process::output(Command::new(program).args(rest).arg("--version"))?;
        let version = version.lines().take(4).collect::<Vec<_>>().join(", ");
        Ok(Self { words, version })
    }
}

/// Starts it; returns its port, too.
pub(crate) fn launch(setup: &Setup, stage: &Stage) -> Result<(u16, Process)> {
    let found = stage.pgbouncer.as_ref().context("no PgBouncer was found")?;
    let (program, rest) = found
        .words
        .split_first()
        .context("pgbouncer.sh printed nothing")?;
    let port = free_port()?;
    let folder = stage.folder_for("pgbouncer")?;
    let ini = folder.join("pgbouncer.ini");
    let users = folder.join("users.txt");
    std::fs::write(&users, userlist(setup)?)?;
    std::fs::write(&ini, config(setup, stage.postgres.port(), port, &users)?)?;
    let mut command = process::command(program);
    command.args(rest);
    if let Some(account) = &stage.account {
        command.args(["-u", &account.name]);
    }
    command.arg(&ini);
    let log = folder.join("log");
    Ok((
        port,
        Process::start("PgBouncer", command, Ending::Kill, log)?,
    ))
}

fn config(setup: &Setup, server_port: u16, port: u16, users: &Path) -> Result<String> {
    let mut ini = String::from("[databases]\n");
    for tenant in &setup.tenants {
        let id = &tenant.id;
        writeln!(
            ini,
            "{id} = host=127.0.0.1 port={server_port} dbname=bench user=bench"
        )?;
    }
    write!(
        ini,
        "[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = scram-sha-256\nauth_file = {}\n\
         pool_mode = transaction\ndefault_pool_size = {}\nmax_prepared_statements = {}\n\
         max_client_conn = 12000\nserver_tls_sslmode = disable\n\
         log_connections = 0\nlog_disconnections = 0\n",
        users.display(),
        setup.pgbouncer_pool_size.unwrap_or(setup.pool_size),
        setup.pgbouncer_statements,
    )?;
    if let Some(made) = &setup.certificate {
        let (certificate, key) = (made.certificate.display(), made.key.display());
        writeln!(ini, "client_tls_sslmode = require")?;
        writeln!(
            ini,
            "client_tls_cert_file = {certificate}\nclient_tls_key_file = {key}"
        )?;
    }
    Ok(ini)
}

fn userlist(setup: &Setup) -> Result<String> {
    let mut list = String::new();
    for tenant in &setup.tenants {
        writeln!(list, "\"{}\" \"{}\"", tenant.id, tenant.verifier)?;
    }
    Ok(list)
}

//! A private PostgreSQL with a registry and a cluster, a proxy that follows it, and who asks.

use crate::postgres::{Account, Postgres, free_port};
use crate::process::{self, Ending, Process};
use crate::wire::Client;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// As PostgreSQL comes, but for the number of connections: what is made must survive a crash.
const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=300",
    "shared_buffers=256MB",
    "ssl=off",
    "jit=off",
];

/// Everything that the cases work with. Processes end before the folder goes.
pub(crate) struct Office {
    program: PathBuf,
    proxy: Option<Process>,
    pub(crate) postgres: Postgres,
    folder: TempDir,
    admin_port: u16,
    pub(crate) port: u16,
    token: String,
}

impl Office {
    /// PostgreSQL, a registry in it, a cluster `main` that is the same PostgreSQL, templates, and
    /// a proxy.
    pub(crate) fn set_up(program: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("pgusher-bench-")
            .tempdir()?;
        process::remove_on_signal(folder.path().to_owned());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let account = Account::instead_of_root()?;
        let postgres = Postgres::start_with(folder.path(), account.as_ref(), SETTINGS)?;
        let mut office = Self {
            program: fs::canonicalize(program)?,
            proxy: None,
            postgres,
            folder,
            admin_port: free_port()?,
            port: free_port()?,
            token: String::new(),
        };
        office
            .admin("postgres")?
            .query("CREATE DATABASE registry")?;
        office.write_files()?;
        office.command(&["migrate"])?;
        let url = format!("postgres://127.0.0.1:{}", office.postgres.port());
        let add = ["cluster", "add", "main", "--primary", &url];
        office.command(&[&add[..], &["--admin-role", "postgres"]].concat())?;
        let token = office.json(&["token", "create", "--role", "admin"])?;
        let token = token.get("token").and_then(Value::as_str);
        token.context("no token")?.clone_into(&mut office.token);
        office.start()?;
        Ok(office)
    }

    fn write_files(&self) -> Result<()> {
        let (registry, clients, admin) = (self.postgres.port(), self.port, self.admin_port);
        let toml = format!(
            "[proxy]\nlisten = \"127.0.0.1:{clients}\"\nworkers = 2\nlog_level = \"warn\"\n\
             auth_failures_per_minute = 100000\n\
             [admin]\nlisten = \"127.0.0.1:{admin}\"\n\
             [registry]\nurl = \"postgres://postgres@127.0.0.1:{registry}/registry\"\n\
             snapshot = \"registry.snapshot\"\n\
             [secrets]\nmaster_key_file = \"master.key\"\n\
             [templates]\ndirectory = \"templates\"\n"
        );
        fs::write(self.path().join("proxy.toml"), toml)?;
        let key = self.command(&["secrets", "key"])?;
        fs::write(self.path().join("master.key"), key)?;
        for (tier, text) in [
            (
                "database",
                include_str!("../../src/demo/templates/database/0001_accounts.sql"),
            ),
            (
                "schema",
                include_str!("../../src/demo/templates/schema/0001_accounts.sql"),
            ),
            (
                "row",
                include_str!("../../src/demo/templates/row/0001_accounts.sql"),
            ),
        ] {
            let folder = self.path().join("templates").join(tier);
            fs::create_dir_all(&folder)?;
            fs::write(folder.join("0001_accounts.sql"), text)?;
        }
        Ok(())
    }

    /// A superuser, past the proxy.
    pub(crate) fn admin(&self, database: &str) -> Result<Client> {
        let mut login = self.postgres.login();
        (login.user, login.database) = ("postgres".into(), database.into());
        Client::login(&login)
    }

    /// Where the files are.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the proxy; returns when it lets clients in.
    pub(crate) fn start(&mut self) -> Result<()> {
        let mut command = process::command(&self.program);
        command.arg("serve").current_dir(self.path());
        let log = self.path().join("log");
        let mut proxy = Process::start("pgusher", command, Ending::Kill, log)?;
        let port = self.port;
        process::retry_while(
            Duration::from_secs(30),
            || proxy.check_alive(),
            || Ok(TcpStream::connect(("127.0.0.1", port))?),
        )?;
        self.proxy = Some(proxy);
        Ok(())
    }

    /// Ends the proxy.
    pub(crate) fn stop(&mut self) {
        self.proxy = None;
    }

    /// The proxy's pid.
    pub(crate) fn pid(&self) -> Result<u32> {
        Ok(self.proxy.as_ref().context("it does not run")?.pid())
    }

    /// A command of the program, in the folder.
    pub(crate) fn prepare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.path());
        command
    }

    /// Runs a command; what it prints.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<String> {
        process::output(&mut self.prepare(arguments))
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.command(&[arguments, &["--json"]].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Makes a tenant by the admin API.
    pub(crate) fn post_tenant(&self, id: &str, tier: &str, is_shared: bool) -> Result<()> {
        let variant = if is_shared {
            ",\"variant\":\"shared\""
        } else {
            ""
        };
        let body = format!("{{\"id\":\"{id}\",\"tier\":\"{tier}\"{variant}}}");
        let request = format!(
            "POST /api/tenants HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.token,
            body.len()
        );
        let mut socket = TcpStream::connect(("127.0.0.1", self.admin_port))?;
        socket.write_all(request.as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        if !answer.starts_with("HTTP/1.1 201") {
            bail!("tenant {id} was not made: {answer}");
        }
        Ok(())
    }
}

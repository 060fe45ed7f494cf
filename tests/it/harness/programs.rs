//! PostgreSQL's own programs as clients: psql, pgbench, `pg_dump`.

use super::{postgres::bin, proxy_file::KEY};
use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a program may run.
const LIMIT: Duration = Duration::from_mins(1);

/// A run that has ended.
pub struct Run {
    /// Whether it said that it succeeded.
    pub is_success: bool,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Run {
    /// Fails the test unless the program succeeded.
    pub fn succeeded(self) -> Self {
        assert!(self.is_success, "it failed: {}{}", self.out, self.err);
        self
    }
}

/// A PostgreSQL program, connecting as a tenant.
pub fn program(name: &str, port: u16, tenant: &str) -> Command {
    let in_bin = bin().join(name);
    let mut command = Command::new(if in_bin.exists() { in_bin } else { name.into() });
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("LC_ALL", "C.UTF-8")
        .env("HOME", "/nonexistent")
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", port.to_string())
        .env("PGUSER", tenant)
        .env("PGDATABASE", tenant)
        .env("PGPASSWORD", KEY)
        .env("PGCONNECT_TIMEOUT", "10");
    command
}

/// Runs it to its end.
pub fn run(command: &mut Command) -> Run {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("can't start {command:?}: {error}"));
    let pid = child.id().to_string();
    let (done, is_done) = std::sync::mpsc::sync_channel::<()>(1);
    let guard = thread::spawn(move || {
        let start = Instant::now();
        if is_done.recv_timeout(LIMIT).is_err() && start.elapsed() >= LIMIT {
            super::postgres::signal("KILL", &pid);
        }
    });
    let err = child
        .stderr
        .take()
        .map(|pipe| thread::spawn(move || read_all(pipe)));
    let out = read_all(child.stdout.take().expect("it was asked for"));
    let err = err.expect("it was asked for").join().unwrap();
    let status = child.wait().unwrap();
    drop(done);
    guard.join().unwrap();
    Run {
        is_success: status.success(),
        out,
        err,
    }
}

fn read_all(mut pipe: impl std::io::Read) -> String {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs a psql script that stops at the first error.
pub fn psql(port: u16, tenant: &str, folder: &Path, script: &str) -> Run {
    let file = folder.join("script.sql");
    fs::write(&file, script).unwrap();
    let mut command = program("psql", port, tenant);
    run(command
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f"])
        .arg(file))
}

/// Runs `pgusher` itself.
pub fn pgusher(arguments: &[&str]) -> Output {
    let mut command = Command::new(super::proxy::PROGRAM);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

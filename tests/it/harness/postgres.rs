//! A private PostgreSQL, made for the tests and gone with them.

use super::{
    Client, Connect, Place,
    certificates::Authority,
    connect::Address,
    place::Login,
    port,
    wait::{eventually, eventually_some},
};
use std::{
    env, fs,
    io::Write,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::OnceLock,
};

/// The superuser.
pub const ADMIN: &str = "admin";

/// Where a PostgreSQL listens.
#[derive(Clone)]
pub struct Endpoint {
    port: u16,
    ca: PathBuf,
}

impl Endpoint {
    /// Its TCP address.
    pub fn address(&self) -> Address {
        Address::Tcp(([127, 0, 0, 1], self.port).into())
    }

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The authority that signed its certificate.
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// As a cluster's `primary`.
    pub fn url(&self) -> String {
        format!("postgres://127.0.0.1:{}", self.port)
    }

    fn connect(&self, database: &str) -> Connect {
        Connect::to(self.address()).user(ADMIN).database(database)
    }

    /// A superuser's connection.
    pub fn admin(&self) -> Client {
        self.admin_of("postgres")
    }

    /// A superuser's connection to a database.
    pub fn admin_of(&self, database: &str) -> Client {
        self.connect(database).login()
    }

    /// A superuser's connection, when one can be had.
    pub fn admin_if_up(&self) -> Option<Client> {
        let connect = self.connect("postgres");
        connect
            .try_open()
            .ok()
            .and_then(|_| connect.try_login().ok())
    }
}

/// A folder with a cluster in it, and perhaps a server that runs on it.
pub struct Postgres {
    root: PathBuf,
    endpoint: Endpoint,
    server: Option<Server>,
    frozen: Vec<String>,
}

/// The server's parent: a shell that waits for its standard input to end. That happens when this
/// process ends, however it ends; then the shell ends the server and removes the folder.
struct Server {
    shell: Child,
    input: ChildStdin,
}

const GUARD: &str = r#"
root=$1; shift
"$@" </dev/null >>"$root/log" 2>&1 &
server=$!
read -r word
kill -QUIT $server 2>/dev/null
# It may have been stopped by a signal.
kill -CONT $server 2>/dev/null
wait $server
[ "$word" = keep ] || rm -rf "$root"
"#;

impl Postgres {
    /// The one that all tests of this process share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// One of the caller's own, to be stopped, killed and started again.
    pub fn start() -> Self {
        let root = tempfile::Builder::new()
            .prefix("pgusher-test-")
            .tempdir()
            .unwrap()
            .keep();
        let port = port::free();
        let endpoint = Endpoint {
            port,
            ca: root.join("ca.crt"),
        };
        let mut postgres = Self {
            root,
            endpoint,
            server: None,
            frozen: Vec::new(),
        };
        postgres.initialise();
        postgres.run();
        let mut admin = postgres.endpoint.admin();
        for group in ["by_md5", "by_password", "by_trust", "by_tls"] {
            admin.exec(&format!("create role {group}"));
        }
        admin.exec("create database shared");
        admin.exec("revoke connect on database postgres from public");
        postgres
    }

    /// A hot standby of this one, which must outlive it.
    pub fn standby(&self) -> Self {
        let root = tempfile::Builder::new()
            .prefix("pgusher-test-")
            .tempdir()
            .unwrap()
            .keep();
        own(&root);
        let port = port::free();
        let mut standby = Self {
            root,
            endpoint: Endpoint {
                port,
                ca: self.endpoint.ca.clone(),
            },
            server: None,
            frozen: Vec::new(),
        };
        let from = self.endpoint.port.to_string();
        let output = as_owner("pg_basebackup")
            .args(["-h", "127.0.0.1", "-p", &from, "-U", ADMIN])
            .args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-D"])
            .arg(standby.data())
            .output()
            .expect("pg_basebackup runs");
        assert!(
            output.status.success(),
            "pg_basebackup: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let root = standby.root.display();
        let settings = format!("port = {port}\nunix_socket_directories = '{root}'\n");
        fs::OpenOptions::new()
            .append(true)
            .open(standby.data().join("postgresql.conf"))
            .unwrap()
            .write_all(settings.as_bytes())
            .unwrap();
        standby.run();
        standby
    }

    fn initialise(&self) {
        Authority::new(&self.root).sign("server");
        own(&self.root);
        own(&self.root.join("server.key"));
        fs::set_permissions(
            self.root.join("server.key"),
            PermissionsExt::from_mode(0o600),
        )
        .unwrap();
        let output = as_owner("initdb")
            .args([
                "--no-sync",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--username",
                ADMIN,
            ])
            .arg(self.data())
            .output()
            .expect("initdb runs");
        assert!(
            output.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let port = self.endpoint.port;
        let root = self.root.display();
        let settings = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{root}'\n\
             max_connections = 300\nfsync = off\nfull_page_writes = off\nshared_buffers = 64MB\n\
             ssl = on\nssl_cert_file = '{root}/server.crt'\nssl_key_file = '{root}/server.key'\n\
             log_line_prefix = '%m [%p] %u@%d '\nlog_min_messages = warning\nmax_wal_size = 256MB\nwal_keep_size = 256MB\n\
             max_prepared_transactions = 10\ntimezone = 'UTC'\nlog_timezone = 'UTC'\n"
        );
        let config = self.data().join("postgresql.conf");
        fs::OpenOptions::new()
            .append(true)
            .open(config)
            .unwrap()
            .write_all(settings.as_bytes())
            .unwrap();
        let access = format!(
            "local all {ADMIN} trust\nhost all {ADMIN} 127.0.0.1/32 trust\n\
             host replication {ADMIN} 127.0.0.1/32 trust\n\
             host all +by_md5 127.0.0.1/32 md5\nhost all +by_password 127.0.0.1/32 password\n\
             host all +by_trust 127.0.0.1/32 trust\nhostssl all +by_tls 127.0.0.1/32 scram-sha-256\n\
             host all +by_tls 127.0.0.1/32 reject\n\
             local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n"
        );
        fs::write(self.data().join("pg_hba.conf"), access).unwrap();
    }

    fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Starts the server, and waits until it answers as the one of this folder.
    pub fn run(&mut self) {
        assert!(self.server.is_none(), "it runs already");
        let mut shell = as_owner_program(Path::new("/bin/sh"))
            .args(["-c", GUARD, "guard"])
            .arg(&self.root)
            .arg(bin().join("postgres"))
            .arg("-D")
            .arg(self.data())
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("a shell starts");
        let input = shell.stdin.take().expect("it was asked for");
        self.server = Some(Server { shell, input });
        let mut admin = eventually_some("PostgreSQL answers; see its log", || {
            self.endpoint.admin_if_up()
        });
        assert_eq!(
            admin.value("show data_directory"),
            self.data().display().to_string()
        );
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The folder of its Unix socket.
    pub fn socket_folder(&self) -> &Path {
        &self.root
    }

    /// A new role with a schema of its name in the shared database.
    pub fn place(&self) -> Place {
        Place::room(&self.endpoint, Login::Scram)
    }

    /// A new database with its own role.
    pub fn database(&self) -> Place {
        Place::database(&self.endpoint, Login::Scram)
    }

    /// A new schema of the shared database with its own role.
    pub fn schema(&self) -> Place {
        Place::schema(&self.endpoint)
    }

    /// A superuser's connection.
    pub fn admin(&self) -> Client {
        self.endpoint.admin()
    }

    /// Ends the server at once, without a farewell to its clients, and keeps its data.
    pub fn kill(&mut self) {
        let pid = self.pid();
        let children = children(&pid);
        signal("KILL", &pid);
        self.stop();
        eventually("all processes of the killed server are gone", || {
            let mut pids = children.iter();
            pids.all(|pid| !Path::new("/proc").join(pid).exists())
        });
    }

    fn pid(&self) -> String {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        file.lines().next().unwrap().to_owned()
    }

    /// Ends the server as an operator does (`pg_ctl stop -m fast`), and keeps its data.
    pub fn stop_fast(&mut self) {
        signal("INT", &self.pid());
        let file = self.data().join("postmaster.pid");
        eventually("the server has stopped", || !file.exists());
        self.stop();
    }

    /// Stops all its processes in their tracks: connections stay open, and nothing answers.
    pub fn freeze(&mut self) {
        assert!(self.frozen.is_empty(), "it is frozen");
        let pid = self.pid();
        // First who could start more.
        signal("STOP", &pid);
        self.frozen.push(pid.clone());
        for child in children(&pid) {
            // It may end in this moment.
            let sent = Command::new("kill").args(["-STOP", &child]).output();
            if sent.is_ok_and(|output| output.status.success()) {
                self.frozen.push(child);
            }
        }
    }

    /// Lets a frozen server go on.
    pub fn thaw(&mut self) {
        for pid in self.frozen.drain(..).rev() {
            Command::new("kill").args(["-CONT", &pid]).output().ok();
        }
    }

    /// Whether it was started and not ended since.
    pub fn is_running(&self) -> bool {
        self.server.is_some()
    }

    /// How long its log is, in bytes.
    pub fn log_length(&self) -> u64 {
        fs::metadata(self.root.join("log")).map_or(0, |file| file.len())
    }

    /// What it has logged from there on.
    pub fn log_since(&self, start: u64) -> String {
        let log = fs::read(self.root.join("log")).unwrap_or_default();
        let start = usize::try_from(start).unwrap().min(log.len());
        String::from_utf8_lossy(&log[start..]).into_owned()
    }

    /// Ends the server, and keeps its data.
    pub fn stop(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        self.thaw();
        server.input.write_all(b"keep\n").expect("the shell reads");
        server.shell.wait().expect("the shell ends");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
        fs::remove_dir_all(&self.root).ok();
    }
}

fn children(pid: &str) -> Vec<String> {
    let pids = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    pids.split_whitespace().map(str::to_owned).collect()
}

/// Sends a signal.
pub fn signal(name: &str, pid: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), pid])
        .status()
        .unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

/// The folder of PostgreSQL's programs.
pub fn bin() -> &'static Path {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(find_bin)
}

fn find_bin() -> PathBuf {
    let has_all =
        |folder: &PathBuf| folder.join("initdb").exists() && folder.join("postgres").exists();
    if let Some(folder) = env::var_os("PGUSHER_PG_BIN") {
        let folder = PathBuf::from(folder);
        assert!(
            has_all(&folder),
            "PGUSHER_PG_BIN has no initdb and postgres"
        );
        return folder;
    }
    let asked = Command::new("pg_config").arg("--bindir").output().ok();
    let configured =
        asked.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let path = env::var_os("PATH").unwrap_or_default();
    let mut installed: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
    {
        let major = entry.file_name().to_string_lossy().parse().unwrap_or(0);
        installed.push((major, entry.path().join("bin")));
    }
    installed.sort();
    let installed = installed.into_iter().rev().map(|(_, folder)| folder);
    let mut candidates = configured
        .into_iter()
        .chain(env::split_paths(&path))
        .chain(installed);
    candidates
        .find(has_all)
        .expect("PostgreSQL is installed, or PGUSHER_PG_BIN names it")
}

/// The user that PostgreSQL runs as: not root.
fn owner() -> Option<(u32, u32)> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0);
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = |name: &str| {
        let line = users
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let fields: Vec<_> = line.split(':').collect();
        Some((fields[2].parse().ok()?, fields[3].parse().ok()?))
    };
    is_root.then(|| {
        ids("postgres")
            .or_else(|| ids("nobody"))
            .expect("a user that is not root")
    })
}

fn own(path: &Path) {
    if let Some((uid, gid)) = owner() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
    if path.is_dir() {
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
}

fn as_owner(program: &str) -> Command {
    as_owner_program(&bin().join(program))
}

fn as_owner_program(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir("/")
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default());
    command.env("LC_ALL", "C");
    if let Some((uid, gid)) = owner() {
        command.uid(uid).gid(gid);
    }
    command
}

//! The proxy as a process: `pgusher serve`.

use super::{
    Connect, Place, Postgres,
    certificates::{Authority, Certificate},
    connect::Address,
    port,
    postgres::signal,
    proxy_file::{KEY, Mode, ProxyFile, Tenant},
    tls,
    wait::{eventually, eventually_some},
};
use rustls::ClientConfig;
use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    net::TcpStream,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
};
use tempfile::TempDir;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_pgusher");

/// A proxy that is about to be started.
pub struct Builder {
    file: ProxyFile,
    folder: TempDir,
    authority: Option<Authority>,
    has_admin: bool,
    workers: u32,
    descriptors: Option<u32>,
}

/// A proxy that runs. It is killed when this is dropped.
pub struct Proxy {
    /// Its file, as it was read last.
    pub file: ProxyFile,
    folder: TempDir,
    authority: Option<Authority>,
    port: u16,
    admin_port: Option<u16>,
    child: Child,
    log: Arc<Mutex<String>>,
}

/// A proxy for one tenant, `acme`, in a place of its own.
pub fn one_tenant(change: impl FnOnce(Tenant) -> Tenant) -> Proxy {
    let place = Postgres::shared().place();
    Proxy::of([change(Tenant::new("acme", &place))]).start()
}

impl Proxy {
    /// A proxy for these tenants, who are in one PostgreSQL.
    pub fn of(tenants: impl IntoIterator<Item = Tenant>) -> Builder {
        let tenants: Vec<_> = tenants.into_iter().collect();
        let endpoint = tenants[0].place.endpoint().clone();
        Self::with(ProxyFile::new(&endpoint, tenants))
    }

    /// A proxy with this file.
    pub fn with(file: ProxyFile) -> Builder {
        Builder {
            file,
            folder: tempfile::Builder::new()
                .prefix("pgusher-proxy-")
                .tempdir()
                .unwrap(),
            authority: None,
            has_admin: false,
            workers: 2,
            descriptors: None,
        }
    }

    /// Where clients connect.
    pub fn address(&self) -> Address {
        Address::Tcp(([127, 0, 0, 1], self.port).into())
    }

    /// The TCP port for clients.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The TCP port of the admin listener.
    pub fn admin_port(&self) -> u16 {
        self.admin_port
            .expect("it was built with an admin listener")
    }

    /// A folder of the proxy's own.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The place of a tenant.
    pub fn place(&self, tenant: &str) -> Place {
        self.file.clone().tenant(tenant).place.clone()
    }

    /// A client of this tenant, with the usual key.
    pub fn connect(&self, tenant: &str) -> Connect {
        if is_left_out() {
            return self.place(tenant).direct();
        }
        Connect::to(self.address()).user(tenant).password(KEY)
    }

    /// TLS towards this proxy.
    pub fn tls(&self) -> Arc<ClientConfig> {
        self.tls_with(None, None)
    }

    /// TLS with a protocol name, and with a client certificate.
    pub fn tls_with(&self, alpn: Option<&str>, own: Option<&Certificate>) -> Arc<ClientConfig> {
        tls::trusting(&self.authority().ca, alpn, own)
    }

    /// Who signed the proxy's certificate.
    pub fn authority(&self) -> &Authority {
        self.authority.as_ref().expect("it was built with TLS")
    }

    /// The URL of a tenant, for other programs.
    pub fn url(&self, tenant: &str) -> String {
        format!("postgres://{tenant}:{KEY}@127.0.0.1:{}/{tenant}", self.port)
    }

    /// The pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard output and standard error.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Memory that it holds now.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("VmRSS");
        let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kilobytes * 1024
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        signal(name, &self.pid().to_string());
    }

    /// Changes the file and asks to read it again.
    pub fn reload(&mut self, change: impl FnOnce(&mut ProxyFile)) {
        change(&mut self.file);
        fs::write(self.folder().join("proxy.toml"), self.file.render()).unwrap();
        self.signal("HUP");
    }

    /// How it ended, once it has.
    pub fn end(&mut self) -> ExitStatus {
        eventually_some("the proxy ends", || self.child.try_wait().unwrap())
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Starts it again, with the same file, on the same port.
    pub fn start_again(&mut self) {
        assert!(!self.is_alive(), "it runs");
        (self.child, self.log) = spawn(self.folder.path(), None);
        self.wait_until_it_serves();
    }

    fn wait_until_it_serves(&mut self) {
        let port = self.port;
        let (child, log) = (&mut self.child, &self.log);
        eventually("the proxy listens", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the proxy ended with {status}: {}", log.lock().unwrap());
            }
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }
}

/// Whether tests talk to PostgreSQL itself, to see that they ask for what PostgreSQL does.
pub fn is_left_out() -> bool {
    env::var_os("PGUSHER_TEST_DIRECT").is_some()
}

impl Builder {
    /// Sets a field of `[proxy]`.
    pub fn set(mut self, name: &str, value: impl Into<toml::Value>) -> Self {
        self.file.set(name, value);
        self
    }

    /// Sets a field of the cluster.
    pub fn cluster(mut self, name: &str, value: impl Into<toml::Value>) -> Self {
        self.file.set_cluster(name, value);
        self
    }

    /// With tenants that come from a registry, and the key that opens its secrets.
    pub fn registry(mut self, url: &str, master_key: &str) -> Self {
        let path = self.folder.path().join("master.key");
        fs::write(&path, master_key).unwrap();
        let (registry, secrets) = (&mut self.file.registry, &mut self.file.secrets);
        registry.insert("url".into(), url.into());
        registry.insert("snapshot".into(), "registry.snapshot".into());
        secrets.insert("master_key_file".into(), "master.key".into());
        self
    }

    /// Sets a field of `[registry]`.
    pub fn set_registry(mut self, name: &str, value: impl Into<toml::Value>) -> Self {
        self.file.registry.insert(name.into(), value.into());
        self
    }

    /// Sets a field of `[usage]`.
    pub fn set_usage(mut self, name: &str, value: impl Into<toml::Value>) -> Self {
        self.file.usage.insert(name.into(), value.into());
        self
    }

    /// With one more cluster.
    pub fn another_cluster(mut self, name: &str, primary: &str) -> Self {
        let pairs = [("name", name), ("primary", primary)];
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.into());
        self.file
            .other_clusters
            .push(pairs.map(pair).into_iter().collect());
        self
    }

    /// Sets a path of `[proxy]`, inside the proxy's folder.
    pub fn set_path(self, name: &str, file: &str) -> Self {
        let path = self.folder.path().join(file).display().to_string();
        self.set(name, path)
    }

    /// With a certificate, so that clients can have TLS.
    pub fn tls(mut self) -> Self {
        let authority = Authority::new(self.folder.path());
        let server = authority.sign("proxy");
        self.authority = Some(authority);
        self.set("tls_cert", server.cert.to_str().unwrap())
            .set("tls_key", server.key.to_str().unwrap())
    }

    /// With an admin listener.
    pub fn admin(mut self) -> Self {
        self.has_admin = true;
        self
    }

    /// With an admin listener that has a certificate.
    pub fn admin_tls(mut self) -> Self {
        let authority = Authority::new(self.folder.path());
        let server = authority.sign("admin");
        for (name, path) in [("tls_cert", server.cert), ("tls_key", server.key)] {
            let path = path.to_str().unwrap().into();
            self.file.admin.insert(name.into(), path);
        }
        self.authority = Some(authority);
        self.admin()
    }

    /// With so many relaying threads.
    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    /// With no more than so many descriptors.
    pub fn descriptors(mut self, count: u32) -> Self {
        self.descriptors = Some(count);
        self
    }

    /// The proxy's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it, and waits until it accepts clients.
    pub fn start(mut self) -> Proxy {
        let port = port::free();
        let listen = format!("127.0.0.1:{port}");
        match self.file.proxy.remove("listen") {
            None => self.file.set("listen", listen),
            Some(more) => self.file.set("listen", vec![listen.into(), more]),
        }
        self.file.set("workers", self.workers);
        let admin_port = self.has_admin.then(port::free);
        if let Some(port) = admin_port {
            self.file
                .admin
                .insert("listen".into(), format!("127.0.0.1:{port}").into());
        }
        fs::write(self.folder.path().join("proxy.toml"), self.file.render()).unwrap();
        let (child, log) = spawn(self.folder.path(), self.descriptors);
        let Self {
            file,
            folder,
            authority,
            ..
        } = self;
        let mut proxy = Proxy {
            file,
            folder,
            authority,
            port,
            admin_port,
            child,
            log,
        };
        if !is_left_out() {
            proxy.wait_until_it_serves();
        }
        proxy
    }
}

fn spawn(folder: &Path, descriptors: Option<u32>) -> (Child, Arc<Mutex<String>>) {
    let mut command = match descriptors {
        None => Command::new(PROGRAM),
        Some(count) => {
            let mut shell = Command::new("sh");
            let script = format!("ulimit -n {count}; exec \"$0\" \"$@\"");
            shell.args(["-c", &script, PROGRAM]);
            shell
        }
    };
    let mut child = command
        .arg("serve")
        .arg("--config")
        .arg(folder.join("proxy.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let log = Arc::new(Mutex::new(String::new()));
    collect(
        child.stdout.take().expect("it was asked for"),
        Arc::clone(&log),
    );
    collect(
        child.stderr.take().expect("it was asked for"),
        Arc::clone(&log),
    );
    (child, log)
}

fn collect(pipe: impl Read + Send + 'static, log: Arc<Mutex<String>>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        let log = self.log.lock().map(|log| log.clone()).unwrap_or_default();
        if thread::panicking() {
            let lines: Vec<_> = log.lines().collect();
            eprintln!(
                "the proxy's last words:\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
    }
}

/// A pool of this size in this mode, for tests that run in several modes.
pub fn pooled(mode: Mode, servers: u32) -> Proxy {
    one_tenant(|tenant| tenant.mode(mode).pool_size(servers))
}

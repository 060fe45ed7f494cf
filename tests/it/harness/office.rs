//! An operator's desk: a folder with a `proxy.toml` that names a registry of its own, a master key,
//! and the commands that are run there.

use super::{
    Client, Proxy, ProxyFile,
    postgres::{ADMIN, Endpoint},
    programs::{Run, run},
    proxy::PROGRAM,
};
use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};
use tempfile::TempDir;

/// A folder with `proxy.toml` and `master.key`, and a new database for the registry.
pub struct Office {
    folder: TempDir,
    endpoint: Endpoint,
    database: String,
}

impl Office {
    /// The registry is empty: the first command creates it.
    pub fn new(endpoint: &Endpoint) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let database = format!("registry_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        endpoint
            .admin()
            .exec(&format!("create database {database}"));
        let office = Self {
            folder: TempDir::new().unwrap(),
            endpoint: endpoint.clone(),
            database,
        };
        let toml = format!(
            "[registry]\nurl = \"{}\"\n[secrets]\nmaster_key_file = \"master.key\"\n",
            office.url()
        );
        fs::write(office.path().join("proxy.toml"), toml).unwrap();
        office.add_master_key(1);
        office
    }

    /// Where the files are.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The registry's URL.
    pub fn url(&self) -> String {
        let port = self.endpoint.port();
        format!("postgres://{ADMIN}@127.0.0.1:{port}/{}", self.database)
    }

    /// A proxy that serves the tenants of the registry.
    pub fn serve(&self) -> Proxy {
        let master_key = fs::read_to_string(self.path().join("master.key")).unwrap();
        let proxy = Proxy::with(ProxyFile::bare());
        proxy.registry(&self.url(), &master_key).start()
    }

    /// Runs `pgusher` with these arguments here.
    pub fn run(&self, arguments: &[&str]) -> Run {
        run(Command::new(PROGRAM)
            .args(arguments)
            .current_dir(self.path()))
    }

    /// Adds a cluster whose admin is a superuser.
    pub fn add_cluster(&self, name: &str, primary: &Endpoint, options: &[&str]) {
        let url = primary.url();
        let add = ["cluster", "add", name, "--primary", &url];
        let admin = ["--admin-role", ADMIN];
        self.run(&[&add, &admin[..], options].concat()).succeeded();
    }

    /// What a command prints, as JSON. It must succeed.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let arguments = [arguments, &["--json"]].concat();
        serde_json::from_str(&self.run(&arguments).succeeded().out).unwrap()
    }

    /// Puts a new master key of this number into the file.
    pub fn add_master_key(&self, number: u32) {
        let made = self.run(&["secrets", "key", "--number", &number.to_string()]);
        let path = self.path().join("master.key");
        let before = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, before + &made.succeeded().out).unwrap();
    }

    /// A superuser in the registry's database.
    pub fn admin(&self) -> Client {
        self.endpoint.admin_of(&self.database)
    }
}

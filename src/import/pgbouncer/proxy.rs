//! `[proxy]`: listeners, TLS towards clients, counts.

use super::{
    super::ini::{self, Spot},
    Globals, Notes, Toml,
};
use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    path::Path,
    time::Duration,
};

/// Most clients that `proxy.toml` takes.
pub(super) const CLIENTS_MAX: u64 = 1_000_000;

/// `[proxy]` in the making.
pub(super) struct Proxy {
    listen: Vec<String>,
    max_clients: u64,
    login_timeout: Duration,
    tls: Vec<(&'static str, toml::Value)>,
    /// Where clients connect, for URLs.
    pub(super) address: String,
}

pub(super) fn proxy(globals: &mut Globals, file: &Path, notes: &mut Notes) -> Proxy {
    let (listen, address) = listen(globals, notes);
    let (tls, requires_certificate) = tls(globals, file, notes);
    auth_type(globals, requires_certificate, notes);
    let max_clients = globals.number("max_client_conn", 100, notes);
    let mut login_timeout = globals.time("client_login_timeout", 60, notes);
    if login_timeout.is_zero() {
        notes.say(
            "client_login_timeout",
            "0: pgusher needs an end; 60 s were written",
        );
        login_timeout = Duration::from_mins(1);
    }
    Proxy {
        listen,
        max_clients: max_clients.clamp(1, CLIENTS_MAX),
        login_timeout,
        tls,
        address,
    }
}

impl Proxy {
    pub(super) fn write(&self, toml: &mut Toml) {
        toml.section("[proxy]");
        let listen: Vec<toml::Value> = self.listen.iter().cloned().map(Into::into).collect();
        toml.value("listen", &listen.into());
        toml.number("max_client_connections", self.max_clients);
        // PgBouncer keeps none for operators.
        toml.number("reserved_client_connections", 0);
        toml.time("login_timeout", self.login_timeout);
        for (key, value) in &self.tls {
            toml.value(key, value);
        }
    }
}

/// The listeners, and one of them for URLs.
fn listen(globals: &mut Globals, notes: &mut Notes) -> (Vec<String>, String) {
    let port = globals.number("listen_port", 6432, notes);
    let port = u16::try_from(port).unwrap_or(6432);
    let mut listen: Vec<String> = Vec::new();
    if let Some((hosts, spot)) = globals.get("listen_addr") {
        for host in hosts
            .split(',')
            .map(str::trim)
            .filter(|host| !host.is_empty())
        {
            listen.extend(tcp(host, port, &spot, notes));
        }
    }
    listen.dedup();
    let address = listen
        .first()
        .map(|first| first.replace("0.0.0.0", "127.0.0.1"));
    match globals.get("unix_socket_dir") {
        Some((folder, _)) if folder.is_empty() => {}
        Some((folder, spot)) if folder.starts_with('@') => notes.at(
            &spot,
            "unix_socket_dir",
            "not taken over: pgusher has no sockets in the abstract namespace",
        ),
        Some((folder, _)) => listen.push(format!("unix:{folder}/.s.PGSQL.{port}")),
        None if listen.is_empty() => listen.push(format!("unix:/tmp/.s.PGSQL.{port}")),
        None => notes.say(
            "unix_socket_dir",
            "not set: PgBouncer listens on a socket in its built-in directory too; add \"unix:<directory>/.s.PGSQL.<port>\" to proxy.listen if somebody uses that",
        ),
    }
    if listen.is_empty() {
        notes.say("listen_addr", "nowhere to listen; 127.0.0.1 was written");
        listen.push(format!("127.0.0.1:{port}"));
    }
    (
        listen,
        address.unwrap_or_else(|| format!("localhost:{port}")),
    )
}

fn tcp(host: &str, port: u16, spot: &Spot, notes: &mut Notes) -> Vec<String> {
    if host == "*" {
        let text = "*: IPv4 only was written; listen = \"[::]:<port>\" takes IPv6 and IPv4";
        notes.at(spot, "listen_addr", text);
        return vec![format!("0.0.0.0:{port}")];
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return vec![SocketAddr::new(address, port).to_string()];
    }
    let Ok(found) = (host, port).to_socket_addrs() else {
        let text = format!("{host:?} was left out: it can't be resolved here");
        notes.at(spot, "listen_addr", text);
        return Vec::new();
    };
    let mut found: Vec<_> = found.map(|address| address.to_string()).collect();
    found.dedup();
    let text = format!("{host:?} was written as the address it has here");
    notes.at(spot, "listen_addr", text);
    found
}

/// The keys of TLS, and whether every client needs a certificate.
fn tls(
    globals: &mut Globals,
    file: &Path,
    notes: &mut Notes,
) -> (Vec<(&'static str, toml::Value)>, bool) {
    let mut keys = Vec::new();
    let mode = globals.get("client_tls_sslmode");
    let mode = mode.as_ref().map_or("disable", |(mode, _)| mode.as_str());
    for (theirs, ours) in [
        ("client_tls_cert_file", "tls_cert"),
        ("client_tls_key_file", "tls_key"),
    ] {
        if let Some(path) = named_file(globals, theirs, file, notes) {
            keys.push((ours, path.into()));
        }
    }
    let verifies = matches!(mode, "verify-ca" | "verify-full");
    let ours = match mode {
        "allow" | "prefer" => Some("allow"),
        "require" | "verify-ca" | "verify-full" => Some("require"),
        _ if keys.is_empty() => None,
        _ => Some("disable"),
    };
    keys.extend(ours.map(|mode| ("tls_mode", mode.into())));
    let spot = globals.get("client_tls_ca_file").map(|(_, spot)| spot);
    let ca = named_file(globals, "client_tls_ca_file", file, notes);
    match (ca, spot) {
        (Some(path), _) if verifies => {
            keys.push(("tls_client_ca", path.into()));
            keys.push(("tls_client_cert_required", true.into()));
        }
        (Some(_), Some(spot)) => notes.at(
            &spot,
            "client_tls_ca_file",
            "not taken over: PgBouncer verifies no client certificate in this client_tls_sslmode",
        ),
        _ if verifies => notes.say(
            "client_tls_sslmode",
            "client certificates are not required any more: there is no client_tls_ca_file; set tls_client_ca and tls_client_cert_required",
        ),
        _ => {}
    }
    (keys, verifies)
}

/// A file that is named, with its whole path.
pub(super) fn named_file(
    globals: &mut Globals,
    key: &str,
    by: &Path,
    notes: &mut Notes,
) -> Option<String> {
    let (value, spot) = globals.get(key)?;
    if value.is_empty() {
        return None;
    }
    let path = ini::locate(Path::new(&value), by);
    if std::fs::File::open(&path).is_err() {
        let text = "it can't be read here; pgusher check will say so until it can";
        notes.at(&spot, key, text);
    }
    let path = std::path::absolute(&path).unwrap_or(path);
    Some(path.display().to_string())
}

fn auth_type(globals: &mut Globals, requires_certificate: bool, notes: &mut Notes) {
    let Some((mode, spot)) = globals.get("auth_type") else {
        return;
    };
    let text = match mode.as_str() {
        "md5" | "scram-sha-256" => return,
        "plain" => {
            "plain: clients are asked for SCRAM-SHA-256; for those that can't, set allow_plaintext_password"
        }
        "trust" | "any" => "clients gave no password; with pgusher each needs a key, see the table",
        "cert" if requires_certificate => {
            "cert: the certificate is asked for, but does not say who the client is; each needs a key, see the table"
        }
        "cert" => {
            "cert: a certificate does not say who the client is; each needs a key, see the table"
        }
        "hba" => {
            "hba: pgusher has no auth_hba_file; each client needs a key, whose \"allow\" may name addresses"
        }
        "pam" | "ldap" => "passwords are kept elsewhere; each client needs a key, see the table",
        _ => "not taken over: each client needs a key, see the table",
    };
    notes.at(&spot, "auth_type", text);
}

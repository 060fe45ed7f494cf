//! `[proxy]` and `[admin]`.

use super::{Check, Checked, open};
use crate::config::{
    Admin, ClientTls, Listen, ListenAddress, Log, Proxy, TlsMode,
    error::{Fault, Problem},
    location::At,
    raw,
    units::OneOrMore,
    url,
};
use ipnet::IpNet;
use std::{collections::HashSet, net::SocketAddr, num::NonZero, path::PathBuf, time::Duration};

const LISTEN: &str = "127.0.0.1:6432";
const OPERATOR_ADDRESSES: [&str; 2] = ["127.0.0.1/32", "::1/128"];
const LOGIN_TIMEOUT: Duration = Duration::from_secs(15);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
const RESTART_TIMEOUT: Duration = Duration::from_secs(30);
const RESTART_GRACE: Duration = Duration::from_mins(5);
/// Tenants that metrics tell apart.
const TENANT_SERIES: u32 = 20;
/// Most bytes of a socket file's path (`sun_path` without its NUL).
const SOCKET_PATH_MAX: usize = 107;
/// Least bytes of the seed that hides which tenants exist.
const SEED_BYTES_MIN: u64 = 16;

impl Check<'_> {
    pub(super) fn admin(&mut self, admin: raw::Admin) -> Checked<Admin> {
        let at = At::top("admin");
        let (cert, key) = (admin.tls_cert.as_deref(), admin.tls_key.as_deref());
        let certificate = self.certificate(at, cert, key);
        let parse = |text: String| text.parse::<SocketAddr>().map_err(|_error| text);
        let listen = match admin.listen.map(parse).transpose() {
            Ok(listen) => listen,
            Err(value) => {
                let socket = "";
                return self.problem(at.key("listen"), Fault::Listen { value, socket });
            }
        };
        let series = at.key("tenant_series");
        let tenant_series = self.number(series, admin.tenant_series, TENANT_SERIES, 0..=1000);
        let certificate = certificate?;
        let is_alone = listen.is_none_or(|address| address.ip().to_canonical().is_loopback());
        if !is_alone && certificate.is_none() {
            let warning = Problem::new(at.key("listen"), Fault::ClearText);
            self.warnings.push(warning);
        }
        Ok(Admin {
            listen,
            certificate,
            tenant_series: tenant_series?,
        })
    }

    pub(super) fn proxy(&mut self, proxy: raw::Proxy) -> Checked<Proxy> {
        let at = At::top("proxy");
        let tls = self.client_tls(at, &proxy);
        let listen = self.listen(at, proxy.listen, proxy.proxy_protocol_listen);
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let cores = cores.min(1024) as u32;
        let workers = self.number(at.key("workers"), proxy.workers, cores, 1..=1024);
        let login_workers = self.number(at.key("login_workers"), proxy.login_workers, 1, 1..=1024);
        let (clients, reserved) = self.client_connections(
            at,
            proxy.max_client_connections,
            proxy.reserved_client_connections,
        );
        let operators = self.operators(at, proxy.operator_addresses);
        let failures = at.key("auth_failures_per_minute");
        let failures = self.number(failures, proxy.auth_failures_per_minute, 30, 1..=1_000_000);
        let login = self.period(at.key("login_timeout"), proxy.login_timeout, LOGIN_TIMEOUT);
        let shutdown = at.key("shutdown_timeout");
        let shutdown = self.period(shutdown, proxy.shutdown_timeout, SHUTDOWN_TIMEOUT);
        let restart = at.key("restart_timeout");
        let restart = self.period(restart, proxy.restart_timeout, RESTART_TIMEOUT);
        let grace = proxy.restart_grace.map_or(RESTART_GRACE, |grace| grace.0);
        let seed = self.seed(at, proxy.auth_seed_file);
        let region = proxy.region.as_deref().map(url::region).transpose();
        let region = match region {
            Ok(region) => Ok(region),
            Err(error) => self.problem(at.key("region"), Fault::Region(error)),
        };
        Ok(Proxy {
            listen: listen?,
            workers: workers? as usize,
            login_workers: login_workers? as usize,
            max_client_connections: clients?,
            reserved_client_connections: reserved?,
            operator_addresses: operators,
            login_timeout: login?,
            tls: tls?,
            allow_plaintext_password: proxy.allow_plaintext_password.unwrap_or(false),
            auth_failures_per_minute: failures?,
            auth_seed_file: seed?,
            shutdown_timeout: shutdown?,
            restart_timeout: restart?,
            restart_grace: Some(grace).filter(|grace| !grace.is_zero()),
            log: Log {
                format: proxy.log_format.unwrap_or_default(),
                level: proxy.log_level.unwrap_or_default(),
            },
            region: region?,
        })
    }

    fn client_connections(
        &mut self,
        at: At<'_>,
        clients: Option<u64>,
        reserved: Option<u64>,
    ) -> (Checked<u32>, Checked<u32>) {
        let clients = self.number(
            at.key("max_client_connections"),
            clients,
            10_000,
            1..=1_000_000,
        );
        let at = at.key("reserved_client_connections");
        let most = clients.as_ref().map_or(u32::MAX, |clients| clients - 1);
        let reserved = match reserved {
            Some(value) if value > most.into() => {
                let other = "the most that max_client_connections leaves";
                let limit = most.into();
                self.problem(
                    at,
                    Fault::Above {
                        value,
                        other,
                        limit,
                    },
                )
            }
            given => self.number(at, given, most.min(5), 0..=1_000_000),
        };
        (clients, reserved)
    }

    fn listen(
        &mut self,
        at: At<'_>,
        plain: Option<OneOrMore>,
        proxied: Option<OneOrMore>,
    ) -> Checked<Vec<Listen>> {
        let plain = match plain {
            Some(OneOrMore(texts)) => texts,
            None => vec![LISTEN.to_owned()],
        };
        let proxied = proxied.map_or_else(Vec::new, |OneOrMore(texts)| texts);
        let mut seen = HashSet::new();
        let mut all = Vec::with_capacity(plain.len() + proxied.len());
        for (key, texts, proxy_protocol) in [
            ("listen", plain, false),
            ("proxy_protocol_listen", proxied, true),
        ] {
            let at = at.key(key);
            for (index, text) in texts.iter().enumerate() {
                let at = at.index(index);
                let address = self.listen_address(at, text)?;
                if !matches!(&address, ListenAddress::Tcp(address) if address.port() == 0) {
                    self.unique(at, &mut seen, &address.to_string());
                }
                all.push(Listen {
                    address,
                    proxy_protocol,
                });
            }
        }
        if all.is_empty() {
            return self.problem(
                at.key("listen"),
                Fault::Missing("give at least one address"),
            );
        }
        Ok(all)
    }

    fn listen_address(&mut self, at: At<'_>, text: &str) -> Checked<ListenAddress> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            let path = self.directory.join(path);
            if path.as_os_str().len() <= SOCKET_PATH_MAX {
                return Ok(ListenAddress::Unix(path));
            }
        } else if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(ListenAddress::Tcp(address));
        }
        let fault = Fault::Listen {
            value: text.to_owned(),
            socket: ", or \"unix:\" and a path of at most 107 bytes",
        };
        self.problem(at, fault)
    }

    fn operators(&mut self, at: At<'_>, texts: Option<Vec<String>>) -> Vec<IpNet> {
        let texts = texts.unwrap_or_else(|| OPERATOR_ADDRESSES.map(str::to_owned).to_vec());
        self.networks(at.key("operator_addresses"), &texts)
    }

    fn client_tls(&mut self, at: At<'_>, proxy: &raw::Proxy) -> Checked<ClientTls> {
        let (cert, key) = (proxy.tls_cert.as_deref(), proxy.tls_key.as_deref());
        let is_given = cert.is_some() || key.is_some();
        let certificate = self.certificate(at, cert, key);
        let mode = match proxy.tls_mode {
            Some(TlsMode::Allow | TlsMode::Require) if !is_given => {
                self.problem(at.key("tls_mode"), Fault::Needs("tls_cert and tls_key"))
            }
            Some(mode) => Ok(mode),
            None if is_given => Ok(TlsMode::Allow),
            None => Ok(TlsMode::Disable),
        };
        let client_ca = match &proxy.tls_client_ca {
            Some(_) if !is_given => {
                let at = at.key("tls_client_ca");
                return self.problem(at, Fault::Needs("tls_cert and tls_key"));
            }
            Some(path) => Some(self.readable(at.key("tls_client_ca"), path)?),
            None => None,
        };
        let required = proxy.tls_client_cert_required.unwrap_or(false);
        let at = at.key("tls_client_cert_required");
        if required && client_ca.is_none() {
            return self.problem(at, Fault::Needs("tls_client_ca"));
        }
        // A client without TLS has no certificate to show: it would slip through.
        if required && matches!(mode, Ok(TlsMode::Disable | TlsMode::Allow)) {
            return self.problem(at, Fault::Needs("tls_mode = \"require\""));
        }
        Ok(ClientTls {
            mode: mode?,
            certificate: certificate?,
            client_ca,
            client_certificate_required: required,
        })
    }

    fn seed(&mut self, at: At<'_>, path: Option<PathBuf>) -> Checked<Option<PathBuf>> {
        let Some(path) = path else {
            return Ok(None);
        };
        let (at, path) = (at.key("auth_seed_file"), self.directory.join(path));
        match open(&path).and_then(|file| file.metadata()) {
            Ok(metadata) if metadata.len() < SEED_BYTES_MIN => {
                let min = SEED_BYTES_MIN;
                self.problem(at, Fault::ShortFile { path, min })
            }
            Ok(_) => Ok(Some(path)),
            Err(source) => self.problem(at, Fault::File { path, source }),
        }
    }
}

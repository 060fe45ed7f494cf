//! How to get in: a table for people, JSON for programs.

use comfy_table::{ContentArrangement, LineStyle, Table, presets};
use serde::Serialize;
use std::{
    io::{IsTerminal as _, Write as _, stdout},
    path::{Path, PathBuf},
};

use super::{
    folder::write_private,
    postgres::Server,
    sql::url,
    state::{DemoTenant, State},
};
use crate::provisioning::Variant;

/// Everything that answers. Serialized, it is the `--json` file.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    proxy: Proxy,
    admin: Admin,
    upstream: Upstream,
    tenants: Vec<Tenant>,
}

#[derive(Debug, Serialize)]
struct Proxy {
    host: &'static str,
    port: u16,
    tls_ca: PathBuf,
}

#[derive(Debug, Serialize)]
struct Admin {
    url: String,
    token: String,
}

#[derive(Debug, Serialize)]
struct Upstream {
    primary: String,
    replicas: [String; 1],
}

#[derive(Debug, Serialize)]
struct Tenant {
    id: String,
    tier: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'static str>,
    pool_mode: &'static str,
    url: String,
    read_only_url: String,
}

impl Report {
    pub(super) fn new(
        state: &State,
        (proxy, admin): (u16, u16),
        (primary, replica): (&Server, &Server),
        tls_ca: PathBuf,
    ) -> Self {
        let tenant = |tenant: &DemoTenant| Tenant {
            id: tenant.id.clone(),
            tier: tenant.tier.as_str(),
            variant: (tenant.variant == Variant::Shared).then_some("shared"),
            pool_mode: tenant.pool_mode.as_str(),
            url: url(&tenant.id, &tenant.key, proxy, &tenant.id),
            read_only_url: url(&tenant.id, &tenant.read_only_key, proxy, &tenant.id),
        };
        Self {
            proxy: Proxy {
                host: "127.0.0.1",
                port: proxy,
                tls_ca,
            },
            admin: Admin {
                url: format!("http://127.0.0.1:{admin}"),
                token: state.admin_token.clone(),
            },
            upstream: Upstream {
                primary: primary.superuser().url(),
                replicas: [replica.superuser().url()],
            },
            tenants: state.tenants.iter().map(tenant).collect(),
        }
    }

    /// Writes the JSON file, whole and at once, readable by us alone: it holds keys.
    pub(super) fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        write_private(path, &text)
    }

    /// Prints it on standard output.
    pub(super) fn print(&self) -> std::io::Result<()> {
        let mut out = stdout().lock();
        let width = Table::new().width().filter(|_| out.is_terminal());
        out.write_all(self.text(width).as_bytes())?;
        out.flush()
    }

    /// A URL is never broken: where the table would be wider than the terminal, the URLs stand
    /// below it, each on a line of its own.
    fn text(&self, width: Option<u16>) -> String {
        let wide = self.table(true);
        let wide_width = wide.lines().map(|line| line.chars().count()).max();
        let fits = width.is_none_or(|width| wide_width <= Some(usize::from(width)));
        let mut lines = Vec::new();
        if fits {
            lines.push(wide);
        } else {
            lines.push(self.table(false));
            for tenant in &self.tenants {
                lines.push(format!("\n{}, read-write:", tenant.id));
                lines.push(tenant.url.clone());
                lines.push(format!("{}, read-only:", tenant.id));
                lines.push(tenant.read_only_url.clone());
            }
        }
        let [replica] = &self.upstream.replicas;
        let (admin, token) = (&self.admin.url, &self.admin.token);
        let ca = self.proxy.tls_ca.display();
        lines.extend([
            format!("\nupstream primary, superuser: {}", self.upstream.primary),
            format!("upstream replica, superuser: {replica}"),
            format!("admin: {admin}/metrics {admin}/readyz {admin}/api/openapi.json"),
            format!("admin token: curl -H 'Authorization: Bearer {token}' {admin}/api/tenants"),
            format!("TLS: add ?sslmode=verify-full&sslrootcert={ca}"),
            "\nPaste a DATABASE_URL into psql. Ctrl-C ends everything.\n".to_owned(),
        ]);
        lines.join("\n")
    }

    fn table(&self, has_urls: bool) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
        table.set_content_arrangement(ContentArrangement::Disabled);
        if has_urls {
            table.set_header(["tenant", "tier", "pool mode", "key", "DATABASE_URL"]);
        } else {
            table.set_header(["tenant", "tier", "pool mode"]);
        }
        for tenant in &self.tenants {
            let tier = tenant.variant.map_or(tenant.tier, |_| "row, shared");
            let about = [tenant.id.as_str(), tier, tenant.pool_mode];
            if has_urls {
                let urls = [
                    ("read-write", &tenant.url),
                    ("read-only", &tenant.read_only_url),
                ];
                for (scope, url) in urls {
                    table.add_row(about.into_iter().chain([scope, url.as_str()]));
                }
            } else {
                table.add_row(about);
            }
        }
        table.trim_fmt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let tenant = |id: &str| Tenant {
            id: id.to_owned(),
            tier: "database",
            variant: None,
            pool_mode: "transaction",
            url: url(id, &"k".repeat(62), 6432, id),
            read_only_url: url(id, &"r".repeat(62), 6432, id),
        };
        Report {
            proxy: Proxy {
                host: "127.0.0.1",
                port: 6432,
                tls_ca: "/demo/ca.crt".into(),
            },
            admin: Admin {
                url: "http://127.0.0.1:6433".into(),
                token: "pga_x".into(),
            },
            upstream: Upstream {
                primary: url("postgres", "p", 20001, "postgres"),
                replicas: [url("postgres", "p", 20002, "postgres")],
            },
            tenants: vec![tenant("acme"), tenant("initech")],
        }
    }

    #[test]
    fn every_url_stands_whole_on_one_line_at_any_width() {
        let report = report();
        for width in [None, Some(40), Some(80), Some(400)] {
            let text = report.text(width);
            for tenant in &report.tenants {
                for url in [&tenant.url, &tenant.read_only_url] {
                    let line = text.lines().find(|line| line.contains(url.as_str()));
                    let is_narrow = width.is_some_and(|width| width < 100);
                    assert!(line.is_some_and(|line| !is_narrow || line == url), "{text}");
                }
            }
        }
    }

    #[test]
    fn the_json_file_has_the_documented_keys_and_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("demo.json");
        let report = report();
        report.write_json(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(json["proxy"]["port"], 6432);
        assert_eq!(json["proxy"]["tls_ca"], "/demo/ca.crt");
        assert_eq!(json["admin"]["url"], report.admin.url);
        assert_eq!(json["upstream"]["replicas"][0], report.upstream.replicas[0]);
        assert_eq!(json["tenants"][1]["id"], "initech");
        assert_eq!(
            json["tenants"][1]["read_only_url"],
            report.tenants[1].read_only_url
        );
    }
}

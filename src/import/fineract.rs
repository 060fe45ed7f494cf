//! Fineract's tenant store: `tenants` and `tenant_server_connections`.

use super::{
    ImportError,
    facts::{Facts, Role},
    ids::Ids,
    mapping::{metadata, pool, time_zone},
    note::Notes,
    place::Places,
    sealed::Fineract as Sealed,
    source::{Columns, Source},
    store::{self, Plan, Report},
};
use crate::{
    config::Config,
    control::{Actor, Control},
    tenant::{Secret, Tier},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
};

/// What is to be imported, from where.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The other system's PostgreSQL.
    pub from: Secret,
    /// A file with the master password that its passwords are sealed under.
    pub master_password: Option<PathBuf>,
    /// The cluster that stands for a server whose address no cluster has.
    pub cluster: Option<String>,
    /// Ids for names that should have another than the usual one.
    pub ids: BTreeMap<String, String>,
    /// Say what would be done.
    pub is_dry_run: bool,
}

impl Wanted {
    /// The master password: the file without its last newline.
    pub(super) fn master(&self) -> Result<Option<Secret>, ImportError> {
        let Some(path) = &self.master_password else {
            return Ok(None);
        };
        let text = super::ini::text_of(path)?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        Ok(Some(Secret::new(text.to_owned())))
    }
}

const ROWS: &str =
    "SELECT jsonb_build_object('tenant', to_jsonb(t), 'oltp', to_jsonb(o), 'report', to_jsonb(r))
     FROM tenants t LEFT JOIN tenant_server_connections o ON o.id = t.oltp_id
         LEFT JOIN tenant_server_connections r ON r.id = t.report_id
     ORDER BY t.id";

/// Columns that are taken over.
const TAKEN: [&str; 18] = [
    "id",
    "schema_server",
    "schema_server_port",
    "schema_name",
    "schema_username",
    "schema_password",
    "schema_connection_parameters",
    "auto_update",
    "pool_initial_size",
    "pool_max_active",
    "readonly_schema_server",
    "readonly_schema_server_port",
    "readonly_schema_name",
    "readonly_schema_username",
    "readonly_schema_password",
    "readonly_schema_connection_parameters",
    "master_password_hash",
    "oltp_id",
];
/// Columns of `tenants` that become columns of ours; all others become metadata.
const TENANT: [&str; 7] = [
    "id",
    "identifier",
    "name",
    "timezone_id",
    "oltp_id",
    "report_id",
    "lastmodified_date",
];

/// Reads the store and writes what is new to the registry, each tenant in a transaction. Nothing is
/// written when a password can't be opened, a server is no cluster of ours, or two identifiers
/// become one id.
///
/// # Errors
/// [`ImportError`].
///
/// # Cancel safety
/// Tenants that were written stay, and their keys are lost: make new ones.
pub async fn fineract(
    control: &Control,
    actor: &Actor,
    config: &Config,
    wanted: &Wanted,
) -> Result<Report, ImportError> {
    let mut source = Source::open(&wanted.from).await?;
    let rows = source.rows(ROWS).await?;
    let zones = source.time_zones().await?;
    source.close().await;
    let clusters = store::clusters(&control.registry).await?;
    let mut reader = Reader {
        master: wanted.master()?,
        places: Places::new(&clusters, config, wanted.cluster.clone()),
        ids: Ids::new(&wanted.ids),
        zones,
        notes: Notes::default(),
    };
    let facts = rows.iter().map(|row| reader.tenant(row));
    let facts = facts.collect::<Result<Vec<_>, _>>()?;
    let plan = Plan {
        facts,
        left: Vec::new(),
        notes: reader.notes,
    };
    store::carry_out(
        plan,
        &control.registry,
        actor,
        "fineract",
        wanted.is_dry_run,
    )
    .await
}

struct Reader<'a> {
    master: Option<Secret>,
    places: Places,
    ids: Ids<'a>,
    zones: HashSet<String>,
    notes: Notes,
}

impl Reader<'_> {
    fn tenant(&mut self, row: &Value) -> Result<Facts, ImportError> {
        let tenant = Columns::of(row.get("tenant"));
        let (oltp, report) = (Columns::of(row.get("oltp")), Columns::of(row.get("report")));
        let identifier = tenant.text("identifier").unwrap_or_default();
        let subject = format!("tenant {identifier:?}");
        let needed = |name: &str| {
            oltp.text(name).ok_or_else(|| {
                ImportError::Refused(format!("{subject}: its connection has no {name}"))
            })
        };
        let (host, database) = (needed("schema_server")?, needed("schema_name")?);
        let port = port(&oltp, "schema_server_port", &subject)?;
        let cluster = self.places.cluster(&host, port);
        let cluster = cluster.map_err(|text| ImportError::Refused(format!("{subject}: {text}")))?;
        let role = Role {
            name: needed("schema_username")?,
            password: self.password(&oltp, "schema_password", &subject)?,
        };
        let server = (host.as_str(), port);
        let read_only = self.read_only(&oltp, &report, (server, &database, &cluster), &subject)?;
        let settings = self.parameters(&oltp, "schema_connection_parameters", &subject);
        self.tell_columns(&oltp);
        let (pool_size, min_pool_size) = pool(
            oltp.number("pool_max_active"),
            oltp.number("pool_initial_size"),
            &subject,
            &mut self.notes,
        );
        Ok(Facts {
            id: self.ids.take(&identifier, &subject)?.to_string(),
            name: tenant.text("name").unwrap_or_else(|| identifier.clone()),
            tier: Tier::Database,
            status: "active",
            owner_email: None,
            cluster,
            schema: None,
            role,
            read_only,
            pool_size,
            min_pool_size,
            server_idle_timeout: None,
            query_wait_timeout: None,
            settings,
            time_zone: time_zone(
                &tenant,
                "timezone_id",
                &self.zones,
                &subject,
                &mut self.notes,
            ),
            auto_update: oltp.flag("auto_update").unwrap_or(true),
            metadata: metadata("fineract", &tenant, &TENANT),
            old_url: format!("jdbc:postgresql://{host}:{port}/{database}"),
            database,
        })
    }

    /// A password as it is, or opened with the master password.
    fn password(
        &mut self,
        row: &Columns,
        column: &str,
        subject: &str,
    ) -> Result<Option<Secret>, ImportError> {
        let Some(text) = row.secret(column) else {
            return Ok(None);
        };
        // Without a hash of a master password the store is older than sealing.
        if row.text("master_password_hash").is_none() {
            return Ok(Some(text));
        }
        let Some(sealed) = Sealed::read(text.expose()) else {
            let note =
                "it is not sealed as the master password's hash says: it was taken as it stands";
            self.notes.say(&format!("{subject}: {column}"), note);
            return Ok(Some(text));
        };
        let Some(master) = &self.master else {
            return Err(ImportError::Refused(format!(
                "{subject}: {column} is sealed; give --master-password-file (FINERACT_DEFAULT_TENANTDB_MASTER_PASSWORD, \"fineract\" where nobody set it)"
            )));
        };
        let opened = sealed.open(master).map_err(|_unopened| {
            ImportError::Refused(format!(
                "{subject}: {column} does not open with this master password (AES/CBC/PKCS5Padding, the only form that is read); nothing was written"
            ))
        })?;
        Ok(Some(opened))
    }

    /// The login that reads only: of the read-only columns, else of the connection for reports.
    fn read_only(
        &mut self,
        oltp: &Columns,
        report: &Columns,
        (server, database, cluster): ((&str, u16), &str, &str),
        subject: &str,
    ) -> Result<Option<Role>, ImportError> {
        let (row, prefix) = if oltp.text("readonly_schema_username").is_some() {
            (oltp, "readonly_")
        } else if report.text("id") != oltp.text("id") && report.text("schema_username").is_some() {
            (report, "")
        } else {
            return Ok(None);
        };
        let column = |name: &str| format!("{prefix}{name}");
        let name = row.text(&column("schema_username")).unwrap_or_default();
        let what = format!("{subject}: {}", column("schema_username"));
        let theirs = row.text(&column("schema_name"));
        if theirs.is_some_and(|theirs| theirs != database) {
            let note = "not taken over: it reads another database, and a tenant has one";
            self.notes.say(&what, note);
            return Ok(None);
        }
        if Some(&name) == oltp.text("schema_username").as_ref() {
            let note = "not taken over: it is the role that writes; a read-only key needs a role that can't";
            self.notes.say(&what, note);
            return Ok(None);
        }
        let host = row.text(&column("schema_server"));
        let host = host.unwrap_or_else(|| server.0.to_owned());
        let port = match row.text(&column("schema_server_port")) {
            Some(_) => port(row, &column("schema_server_port"), subject)?,
            None => server.1,
        };
        if (host.as_str(), port) != server {
            let note = self.places.reads_from(cluster, &host, port);
            self.notes.say(&what, note);
        }
        self.notes.once(
            "read-only roles",
            "pgusher takes care that a read-only key logs in as this role; that the role has no write privilege is for PostgreSQL to say",
        );
        if row.text(&column("schema_connection_parameters")).is_some() && prefix == "readonly_" {
            let note = "not taken over: a tenant's settings hold for both of its roles";
            self.notes.say(
                &format!("{subject}: {}", column("schema_connection_parameters")),
                note,
            );
        }
        let password = self.password(row, &column("schema_password"), subject)?;
        Ok(Some(Role { name, password }))
    }

    /// JDBC parameters that are settings of PostgreSQL.
    fn parameters(
        &mut self,
        row: &Columns,
        column: &str,
        subject: &str,
    ) -> BTreeMap<String, String> {
        let mut settings = BTreeMap::new();
        let text = row.text(column).unwrap_or_default();
        let pairs = text.trim_start_matches('?').split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let setting = match name {
                "currentSchema" => "search_path",
                "ApplicationName" => "application_name",
                _ => {
                    let what = format!("{subject}: {column}: {name}");
                    self.notes.say(&what, "not taken over: it is for the JDBC driver (of MySQL, perhaps); see \"settings\" and the cluster's \"tls\"");
                    continue;
                }
            };
            settings.insert(setting.to_owned(), value.to_owned());
        }
        settings
    }

    /// Tells the columns that have no counterpart, once.
    fn tell_columns(&mut self, row: &Columns) {
        self.notes.once(
            "tenants.lastmodified_date",
            "not taken over: the registry has a date of its own",
        );
        for name in row.others(&TAKEN) {
            let text = match name.as_str() {
                "pool_min_idle" | "pool_max_idle" => {
                    "not taken over: Fineract does not use it either; see min_pool_size"
                }
                name if name.starts_with("pool_") => {
                    "not taken over: Fineract does not use it either, or only for its own check of connections"
                }
                _ => "not taken over: pgusher has nothing like it",
            };
            self.notes
                .once(&format!("tenant_server_connections.{name}"), text);
        }
    }
}

fn port(row: &Columns, column: &str, subject: &str) -> Result<u16, ImportError> {
    let port = row.text(column).unwrap_or_else(|| "5432".to_owned());
    match port.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(ImportError::Refused(format!(
            "{subject}: {column} is {port:?}, which is no port"
        ))),
    }
}

//! UltraCore's registry: `tenant_configs`.

use super::{
    ImportError,
    facts::{Facts, Role},
    fineract::Wanted,
    ids::Ids,
    mapping::{metadata, pool, time_zone},
    note::Notes,
    place::Places,
    sealed::{UltraCore as Sealed, Unopened},
    source::{Columns, Source},
    store::{self, Outcome, Plan, Report, Tenant},
};
use crate::{
    config::Config,
    control::{Actor, Control},
    tenant::{Secret, Tier},
};
use std::collections::{BTreeMap, HashSet};

const ROWS: &str = "SELECT to_jsonb(t) FROM tenant_configs t ORDER BY t.tenant_id";

/// The form of sealing that is read.
const ALGORITHM: &str = "AES-256-GCM";

/// Columns that become columns of ours, secrets, and what changes by itself; others become metadata.
const TAKEN: [&str; 24] = [
    "tenant_id",
    "tenant_name",
    "tier",
    "status",
    "owner_email",
    "db_host",
    "db_port",
    "db_name",
    "db_username",
    "db_password_encrypted",
    "schema_name",
    "readonly_db_host",
    "readonly_db_port",
    "readonly_db_username",
    "readonly_db_password_encrypted",
    "min_connections",
    "max_connections",
    "connection_timeout_seconds",
    "idle_timeout_seconds",
    "timezone",
    "auto_update",
    "master_password_hash",
    "encryption_algorithm",
    "updated_at",
];

/// Reads the table and writes what is new to the registry, as [`super::fineract::fineract`] does.
/// Tenants without credentials are listed: they have to be made anew.
///
/// # Errors
/// [`ImportError`].
///
/// # Cancel safety
/// Tenants that were written stay, and their keys are lost: make new ones.
pub async fn ultracore(
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
        master: wanted.master()?.as_ref().map(Sealed::new),
        places: Places::new(&clusters, config, wanted.cluster.clone()),
        ids: Ids::new(&wanted.ids),
        zones,
        plan: Plan {
            facts: Vec::new(),
            left: Vec::new(),
            notes: Notes::default(),
        },
    };
    for row in &rows {
        reader.tenant(&Columns::of(Some(row)))?;
    }
    store::carry_out(
        reader.plan,
        &control.registry,
        actor,
        "ultracore",
        wanted.is_dry_run,
    )
    .await
}

struct Reader<'a> {
    master: Option<Sealed>,
    places: Places,
    ids: Ids<'a>,
    zones: HashSet<String>,
    plan: Plan,
}

impl Reader<'_> {
    fn tenant(&mut self, row: &Columns) -> Result<(), ImportError> {
        let theirs = row.text("tenant_id").unwrap_or_default();
        let subject = format!("tenant {theirs:?}");
        let id = self.ids.take(&theirs, &subject)?.to_string();
        let refused = |text: String| ImportError::Refused(format!("{subject}: {text}"));
        let tier = row.text("tier").unwrap_or_default();
        let tier = tier.to_ascii_lowercase().parse::<Tier>();
        let tier = tier.map_err(|error| refused(format!("tier: {error}")))?;
        let name = row.text("tenant_name").unwrap_or_else(|| theirs.clone());
        let (status, why_left) = status(row, tier);
        if let Some(why) = why_left {
            let (cluster, old_url, outcome) = (String::new(), String::new(), Outcome::Left(why));
            self.plan.left.push(Tenant {
                id,
                name,
                cluster,
                old_url,
                outcome,
            });
            return Ok(());
        }
        let host = row
            .text("db_host")
            .unwrap_or_else(|| "localhost".to_owned());
        let port = port(row, "db_port").ok_or_else(|| refused("db_port is no port".to_owned()))?;
        let cluster = self.places.cluster(&host, port).map_err(refused)?;
        let database = row.text("db_name").unwrap_or_default();
        let role = Role {
            name: row.text("db_username").unwrap_or_default(),
            password: self.password(row, "db_password_encrypted", &subject)?,
        };
        let read_only = self.read_only(row, &role.name, ((&host, port), &cluster), &subject)?;
        let notes = &mut self.plan.notes;
        let (max, min) = (row.number("max_connections"), row.number("min_connections"));
        let (pool_size, min_pool_size) = pool(max, min, &subject, notes);
        tell(notes);
        self.plan.facts.push(Facts {
            id,
            name,
            tier,
            status,
            owner_email: row.text("owner_email"),
            cluster,
            schema: schema(row, tier, &theirs, notes),
            role,
            read_only,
            pool_size,
            min_pool_size,
            server_idle_timeout: milliseconds(row, "idle_timeout_seconds"),
            query_wait_timeout: milliseconds(row, "connection_timeout_seconds"),
            settings: BTreeMap::new(),
            time_zone: time_zone(row, "timezone", &self.zones, &subject, notes),
            auto_update: row.flag("auto_update").unwrap_or(true),
            metadata: metadata("ultracore", row, &TAKEN),
            old_url: format!("postgresql://{host}:{port}/{database}"),
            database,
        });
        Ok(())
    }

    fn password(
        &self,
        row: &Columns,
        column: &str,
        subject: &str,
    ) -> Result<Option<Secret>, ImportError> {
        let Some(sealed) = row.secret(column) else {
            return Ok(None);
        };
        let refused = |text: &str| Err(ImportError::Refused(format!("{subject}: {column}{text}")));
        let algorithm = row.text("encryption_algorithm");
        if algorithm.is_some_and(|name| !name.eq_ignore_ascii_case(ALGORITHM)) {
            return refused(
                " is sealed in another form than AES-256-GCM, the only one that is read; nothing was written",
            );
        }
        let Some(master) = &self.master else {
            return refused(" is sealed; give --master-password-file");
        };
        let hash = row.text("master_password_hash");
        if hash.is_some_and(|hash| !master.is_of(&hash)) {
            return refused(
                " was sealed under another master password than this (its hash says so); nothing was written",
            );
        }
        match master.open(sealed.expose()) {
            Ok(password) => Ok(Some(password)),
            Err(Unopened::Wrong) => {
                refused(" does not open with this master password; nothing was written")
            }
            Err(Unopened::Form) => {
                refused(" is no base64 of a nonce and a sealed password; nothing was written")
            }
        }
    }

    fn read_only(
        &mut self,
        row: &Columns,
        writer: &str,
        (server, cluster): ((&str, u16), &str),
        subject: &str,
    ) -> Result<Option<Role>, ImportError> {
        let what = format!("{subject}: readonly_db_host");
        if let Some(host) = row.text("readonly_db_host") {
            let port = port(row, "readonly_db_port").unwrap_or(server.1);
            if (host.as_str(), port) != server {
                let note = self.places.reads_from(cluster, &host, port);
                self.plan.notes.say(&what, note);
            }
        }
        let Some(name) = row.text("readonly_db_username") else {
            return Ok(None);
        };
        if name == writer {
            let note = "not taken over: it is the role that writes; a read-only key needs a role that can't";
            let what = format!("{subject}: readonly_db_username");
            self.plan.notes.say(&what, note);
            return Ok(None);
        }
        let password = self.password(row, "readonly_db_password_encrypted", subject)?;
        Ok(Some(Role { name, password }))
    }
}

/// Our word for the status, and why a tenant can't be imported.
fn status(row: &Columns, tier: Tier) -> (&'static str, Option<String>) {
    let theirs = row.text("status").unwrap_or_default().to_ascii_lowercase();
    let status = match theirs.as_str() {
        "active" => "active",
        "suspended" => "suspended",
        _ => {
            let why = format!(
                "its status is {theirs:?}: only active and suspended ones have a place that could be served"
            );
            return ("active", Some(why));
        }
    };
    let needed = ["db_name", "db_username", "db_password_encrypted"];
    let missing = needed.iter().find(|name| row.text(name).is_none());
    let why = missing.map(|name| {
        format!(
            "it has no {name}: UltraCore gives such tenants no login of their own; make a new one and move its rows: pgusher tenant create --tier {tier}"
        )
    });
    (status, why)
}

/// The schema of the tier schema, by UltraCore's rule where the table names none.
fn schema(row: &Columns, tier: Tier, id: &str, notes: &mut Notes) -> Option<String> {
    if tier != Tier::Schema {
        return None;
    }
    let named = row.text("schema_name");
    Some(named.unwrap_or_else(|| {
        let schema = format!("tenant_{}", id.replace('-', "_"));
        let what = format!("tenant {id:?}: schema_name");
        notes.say(
            &what,
            format!("it is empty: {schema:?} was written, the name that UltraCore gives"),
        );
        schema
    }))
}

fn tell(notes: &mut Notes) {
    for (subject, text) in [
        (
            "max_cpu_percent, max_memory_mb, max_storage_gb, max_concurrent_queries, auto_scale, locale",
            "kept in the tenant's metadata: UltraCore does not act on them either",
        ),
        (
            "updated_at",
            "not taken over: the registry has a date of its own",
        ),
        (
            "connection_timeout_seconds",
            "taken as query_wait_timeout: how long a client waits for a server",
        ),
    ] {
        notes.once(subject, text);
    }
}

fn port(row: &Columns, column: &str) -> Option<u16> {
    match row.text(column) {
        None => Some(5432),
        Some(port) => port.parse().ok().filter(|port| *port > 0),
    }
}

fn milliseconds(row: &Columns, column: &str) -> Option<i64> {
    let seconds = row.number(column)?;
    // A year at most.
    Some(seconds.clamp(0, 365 * 24 * 3600) * 1000)
}

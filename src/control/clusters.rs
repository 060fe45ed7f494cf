//! Use cases for clusters.

use super::{
    Actor, ClusterView, Control, ControlError, Role, names,
    place::{Ground, holes_value, upstream},
    secret,
    view::cluster_record,
};
use crate::{
    config::{cluster_url, replica_url},
    provisioning::Profile,
    registry::{self, Changes, ClusterRow, NewEvent},
    tenant::{Address, Replica, Secret},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// A cluster to be added.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewCluster {
    /// 1 to 63 of `a-z`, `0-9`, `_`, `-`.
    pub name: String,
    /// `postgres://host[:port]`, without user and password.
    pub primary_url: String,
    /// Its hot standbys, the same way, with `?weight=2&region=eu` where it is said.
    pub replica_urls: Vec<String>,
    /// For people.
    pub region: Option<String>,
    /// Who makes and removes tenants there: a superuser, or CREATEROLE and CREATEDB.
    pub admin_role: String,
    /// Its password; `None` where PostgreSQL trusts us. Never read from JSON of an argument.
    #[serde(skip)]
    #[schema(ignore)]
    pub admin_password: Option<Secret>,
    /// `disable`, `require`, `verify-ca`, `verify-full`; `disable` where nothing is said.
    pub tls: Option<String>,
    /// Path of the CA's certificate.
    pub tls_ca: Option<String>,
    /// `strict` (where nothing is said), `compatible` or `sealed`.
    pub profile: Option<String>,
    /// Server connections of all tenants together: 90 where nothing is said.
    pub max_server_connections: Option<i32>,
    /// Server connections being opened at the same time: 8 where nothing is said.
    pub max_parallel_connects: Option<i32>,
    /// Milliseconds: 5000 where nothing is said.
    pub connect_timeout_ms: Option<i64>,
    /// The database that tenants of the tier schema share.
    pub schema_database: Option<String>,
    /// The database that tenants of the tier row share.
    pub row_database: Option<String>,
}

impl NewCluster {
    fn check(&self) -> Result<(), ControlError> {
        names::cluster_name(&self.name)?;
        check_servers(&self.primary_url, &self.replica_urls)?;
        let databases = [
            self.schema_database.as_deref(),
            self.row_database.as_deref(),
        ];
        let names = databases
            .into_iter()
            .flatten()
            .chain([self.admin_role.as_str()]);
        for name in names {
            if name.is_empty() || name.len() > 63 || name.contains('\0') {
                return wrong("admin_role", format!("{name:?} is no name in PostgreSQL"));
            }
        }
        if let [Some(one), Some(other)] = databases
            && one == other
        {
            let problem = "it must be another database than schema_database".to_owned();
            return wrong("row_database", problem);
        }
        let tls = self.tls.as_deref().unwrap_or("disable");
        if !["disable", "require", "verify-ca", "verify-full"].contains(&tls) {
            let problem = "it must be \"disable\", \"require\", \"verify-ca\" or \"verify-full\"";
            return wrong("tls", problem.to_owned());
        }
        if self.tls_ca.is_some() && !tls.starts_with("verify") {
            return wrong(
                "tls_ca",
                "it needs tls \"verify-ca\" or \"verify-full\"".to_owned(),
            );
        }
        self.profile.as_deref().map_or(Ok(()), check_profile)?;
        self.check_numbers()
    }

    fn check_numbers(&self) -> Result<(), ControlError> {
        let counts = [
            (
                "max_server_connections",
                self.max_server_connections,
                100_000,
            ),
            ("max_parallel_connects", self.max_parallel_connects, 10_000),
        ];
        for (field, value, most) in counts {
            if value.is_some_and(|value| value < 1 || value > most) {
                return wrong(field, format!("it must be 1 to {most}"));
            }
        }
        if self
            .connect_timeout_ms
            .is_some_and(|value| !(1..=600_000).contains(&value))
        {
            return wrong("connect_timeout_ms", "it must be 1 to 600000".to_owned());
        }
        Ok(())
    }

    fn row(self, admin_password: Option<Vec<u8>>) -> ClusterRow {
        let now = OffsetDateTime::now_utc();
        let or = |text: Option<String>, default: &str| text.unwrap_or_else(|| default.to_owned());
        ClusterRow {
            name: self.name,
            primary_url: self.primary_url,
            replica_urls: self.replica_urls,
            region: self.region,
            admin_role: self.admin_role,
            admin_password,
            tls: or(self.tls, "disable"),
            tls_ca: self.tls_ca,
            max_server_connections: self.max_server_connections.unwrap_or(90),
            max_parallel_connects: self.max_parallel_connects.unwrap_or(8),
            connect_timeout_ms: self.connect_timeout_ms.unwrap_or(5000),
            profile: or(self.profile, "strict"),
            schema_database: or(self.schema_database, "pgusher_schemas"),
            row_database: or(self.row_database, "pgusher_rows"),
            open_holes: Json(json!([])),
            primary_weight: None,
            replica_lag_max: None,
            replica_lag_bytes_max: None,
            replica_fallback: None,
            replica_slow_start: None,
            watch_interval: None,
            watch_timeout: None,
            max_running_statements: None,
            adaptive_running_statements: None,
            min_running_statements: None,
            paused_until: None,
            generation: 0,
            created_at: now,
            updated_at: now,
        }
    }
}

fn wrong(field: &str, problem: String) -> Result<(), ControlError> {
    Err(ControlError::Invalid {
        field: field.to_owned(),
        problem,
    })
}

pub(super) fn check_profile(name: &str) -> Result<(), ControlError> {
    if Profile::named(name).is_some() {
        return Ok(());
    }
    let problem = "it must be \"strict\", \"compatible\" or \"sealed\"";
    wrong("profile", problem.to_owned())
}

/// That each server of a cluster is one, once.
pub(super) fn check_servers(
    primary_url: &str,
    replica_urls: &[String],
) -> Result<(), ControlError> {
    let mut servers = vec![parsed("primary_url", primary_url)?];
    for url in replica_urls {
        let Replica { address, .. } = replica("replica_urls", url)?;
        if servers.contains(&address) {
            return wrong("replica_urls", format!("{address} is given twice"));
        }
        servers.push(address);
    }
    if replica_urls.len() > Replica::COUNT_MAX {
        return wrong("replica_urls", format!("more than {}", Replica::COUNT_MAX));
    }
    Ok(())
}

fn parsed(field: &str, url: &str) -> Result<Address, ControlError> {
    cluster_url(url).map_err(|error| ControlError::Invalid {
        field: field.to_owned(),
        problem: error.to_string(),
    })
}

/// A hot standby, with its weight and region where the URL says them.
pub(super) fn replica(field: &str, url: &str) -> Result<Replica, ControlError> {
    replica_url(url).map_err(|error| ControlError::Invalid {
        field: field.to_owned(),
        problem: error.to_string(),
    })
}

impl Control {
    /// Adds a cluster: its admin is tried, it is hardened, then it is written. Needs an operator
    /// with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`]. A cluster that was hardened and not written is hardened all the same.
    ///
    /// # Cancel safety
    /// It is added then, or it is not.
    pub async fn add_cluster(
        &self,
        actor: &Actor,
        mut new: NewCluster,
    ) -> Result<ClusterView, ControlError> {
        actor.may_operate(Role::Admin)?;
        new.check()?;
        self.registry.check_keyring().await?;
        let password = new.admin_password.take();
        let owner = format!("cluster:{}", new.name);
        let keyring = &self.registry.keyring;
        let sealed = password.as_ref();
        let sealed = sealed.map(|password| secret::seal(keyring, &owner, secret::ADMIN, password));
        let mut row = new.row(sealed.transpose()?);
        {
            let mut db = self.registry.pool.acquire().await?;
            if registry::cluster(&mut db, &row.name).await?.is_some() {
                return Err(taken(&row.name));
            }
        }
        let ground = Ground::with(&row, password)?;
        ground.probe().await?;
        row.open_holes = Json(harden(&ground).await?);
        let mut tx = self.registry.pool.begin().await?;
        if !registry::insert_cluster(&mut tx, &row).await? {
            return Err(taken(&row.name));
        }
        let stands = one(&mut tx, &row.name).await?;
        let changes = Changes::between(&Map::new(), &cluster_record(&stands));
        tell(&mut tx, actor, "ClusterAdded", (&row.name, changes)).await?;
        tx.commit().await?;
        Ok(ClusterView::from(&stands))
    }

    /// All clusters by name. Needs an operator with the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn clusters(&self, actor: &Actor) -> Result<Vec<ClusterView>, ControlError> {
        actor.may_operate(Role::Viewer)?;
        let mut db = self.registry.pool.acquire().await?;
        let rows = registry::clusters(&mut db).await?;
        Ok(rows.iter().map(ClusterView::from).collect())
    }

    /// A cluster. Needs an operator with the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn cluster(&self, actor: &Actor, name: &str) -> Result<ClusterView, ControlError> {
        actor.may_operate(Role::Viewer)?;
        let mut db = self.registry.pool.acquire().await?;
        Ok(ClusterView::from(&one(&mut db, name).await?))
    }

    pub(super) async fn cluster_row(&self, name: &str) -> Result<ClusterRow, ControlError> {
        let mut db = self.registry.pool.acquire().await?;
        one(&mut db, name).await
    }

    /// The cluster for a new tenant: the one that is named, or the only one.
    pub(super) async fn cluster_for(
        &self,
        db: &mut PgConnection,
        name: Option<&str>,
    ) -> Result<ClusterRow, ControlError> {
        if let Some(name) = name {
            return one(db, name).await;
        }
        let invalid = |problem: String| ControlError::Invalid {
            field: "cluster".to_owned(),
            problem,
        };
        let mut rows = registry::clusters(db).await?;
        match (rows.pop(), rows.len()) {
            (Some(row), 0) => Ok(row),
            (None, _) => Err(invalid(
                "there is no cluster yet; add one: pgusher cluster add NAME --primary postgres://host".to_owned(),
            )),
            (Some(last), _) => {
                let names = rows.iter().take(5).map(|row| row.name.as_str());
                let names = names.chain([last.name.as_str()]).collect::<Vec<_>>().join(", ");
                Err(invalid(format!("there are several clusters; name one of {names}")))
            }
        }
    }
}

fn taken(name: &str) -> ControlError {
    ControlError::Conflict(format!("there is a cluster {name:?} already"))
}

pub(super) async fn harden(ground: &Ground) -> Result<Value, ControlError> {
    let holes = ground.harden().await;
    let what = || format!("cluster {:?} could not be hardened", ground.name);
    let holes = holes.map_err(|cause| upstream(what(), cause))?;
    Ok(holes_value(&holes))
}

pub(super) async fn one(db: &mut PgConnection, name: &str) -> Result<ClusterRow, ControlError> {
    let row = registry::cluster(db, name).await?;
    row.ok_or_else(|| no_cluster(name))
}

/// The same, locked until the transaction ends.
pub(super) async fn locked(db: &mut PgConnection, name: &str) -> Result<ClusterRow, ControlError> {
    let row = registry::lock_cluster(db, name).await?;
    row.ok_or_else(|| no_cluster(name))
}

fn no_cluster(name: &str) -> ControlError {
    ControlError::NotFound {
        what: "cluster",
        id: name.to_owned(),
    }
}

pub(super) async fn tell(
    db: &mut PgConnection,
    actor: &Actor,
    kind: &str,
    (name, changes): (&str, Changes),
) -> Result<(), ControlError> {
    let event = NewEvent {
        tenant: None,
        kind,
        actor: &actor.name,
        address: &actor.address,
        changes,
        facts: json!({ "cluster": name }),
    };
    Ok(registry::append(db, event).await?)
}

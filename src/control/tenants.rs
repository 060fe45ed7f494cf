//! Use cases for tenants: make, list, show, change, verify.

use super::{
    Actor, Control, ControlError, CreatedKey, Listed, NewKey, Page, PoolChange, Role, TenantChange,
    TenantView,
    change::LIMITS,
    keys::{grant, known},
    names::{self, Names},
    place::{Site, holes_value, tier_of, upstream},
    secret,
    turn::{Patience, Turn},
    view::tenant_record,
};
use crate::{
    provisioning::Variant,
    registry::{self, Changes, NewEvent, TenantRow, TenantSeed},
    tenant::{Secret, Tier},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sqlx::PgConnection;
use utoipa::ToSchema;

/// A tenant to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "Map<String, Value>")]
pub struct NewTenant {
    /// The user name of its clients: 1 to 63 of `a-z`, `0-9`, `_`, `-`.
    pub id: String,
    /// `database`, `schema` or `row`.
    pub tier: String,
    /// `own` or `shared` (tier row only): through slots that many tenants use in turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Where; needed when there is more than one cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Everything that can be changed later.
    #[serde(flatten)]
    pub change: TenantChange,
}

impl TryFrom<Map<String, Value>> for NewTenant {
    type Error = String;

    /// By hand, so that an unknown field is an error in spite of `flatten`.
    fn try_from(mut map: Map<String, Value>) -> Result<Self, String> {
        let mut text = |field: &str| match map.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("{field} must be a string")),
        };
        let missing = |field: &str| format!("missing field `{field}`");
        let id = text("id")?.ok_or_else(|| missing("id"))?;
        let tier = text("tier")?.ok_or_else(|| missing("tier"))?;
        let (variant, cluster) = (text("variant")?, text("cluster")?);
        let change =
            serde_json::from_value(Value::Object(map)).map_err(|error| error.to_string())?;
        Ok(Self {
            id,
            tier,
            variant,
            cluster,
            change,
        })
    }
}

/// A tenant just made: the only time that its keys are seen.
#[derive(Debug, Clone)]
pub struct CreatedTenant {
    /// The tenant.
    pub tenant: TenantView,
    /// Reads and writes.
    pub key: CreatedKey,
    /// Reads.
    pub read_only_key: CreatedKey,
    /// The `DATABASE_URL`; it holds the key.
    pub url: Secret,
    /// The `DATABASE_URL` that reads; it holds the key.
    pub read_only_url: Secret,
}

impl CreatedTenant {
    /// All of it, the keys too, to be shown once to who asked for it.
    pub fn reveal(&self) -> Value {
        json!({
            "tenant": self.tenant,
            "key": self.key.reveal(),
            "read_only_key": self.read_only_key.reveal(),
            "url": self.url.expose(),
            "read_only_url": self.read_only_url.expose(),
        })
    }
}

/// What is decided of a new tenant before anything is written.
struct Plan {
    id: String,
    tier: Tier,
    variant: Variant,
    cluster: Option<String>,
    change: TenantChange,
}

impl Plan {
    fn new(new: NewTenant) -> Result<Self, ControlError> {
        let invalid = |field: &str, problem: String| ControlError::Invalid {
            field: field.to_owned(),
            problem,
        };
        let id = names::tenant_id(&new.id)?.as_str().to_owned();
        let tier = new.tier.parse::<Tier>();
        let tier = tier.map_err(|error| invalid("tier", error.to_string()))?;
        let variant = match new.variant.as_deref() {
            None | Some("own") => Variant::Own,
            Some("shared") if tier == Tier::Row => Variant::Shared,
            Some("shared") => {
                let problem = "\"shared\" is for the tier \"row\" only".to_owned();
                return Err(invalid("variant", problem));
            }
            Some(_) => {
                let problem = "it must be \"own\" or \"shared\"".to_owned();
                return Err(invalid("variant", problem));
            }
        };
        new.change.check()?;
        Ok(Self {
            id,
            tier,
            variant,
            cluster: new.cluster,
            change: new.change,
        })
    }
}

fn variant_name(variant: Variant) -> &'static str {
    match variant {
        Variant::Own => "own",
        Variant::Shared => "shared",
    }
}

impl Control {
    /// Makes a tenant and its first two keys. One that was left half made, by a kill or a lost
    /// connection, is gone on with. Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`]. Where the cluster refused, everything is taken back; where that failed too,
    /// the message says how to go on.
    ///
    /// # Cancel safety
    /// It goes on in the background: it is made then or taken back, and its keys are lost.
    pub async fn create_tenant(
        &self,
        actor: &Actor,
        new: NewTenant,
    ) -> Result<CreatedTenant, ControlError> {
        actor.may_operate(Role::Admin)?;
        let plan = Plan::new(new)?;
        let (control, actor) = (self.clone(), actor.clone());
        finished(tokio::spawn(
            async move { control.create(&actor, plan).await },
        ))
        .await
    }

    async fn create(&self, actor: &Actor, plan: Plan) -> Result<CreatedTenant, ControlError> {
        let mut turn = self.turn(&plan.id, Patience::None).await?;
        let begun = self.begin(actor, &mut turn, &plan).await;
        let made = match begun {
            Ok((row, site)) => self.finish(actor, &mut turn, (row, site), true).await,
            Err(error) => Err(error),
        };
        turn.end().await;
        let (tenant, keys) = made?;
        with_keys(tenant, keys)
    }

    /// Goes on with a tenant that was left half made. Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// As [`Control::create_tenant`]; [`ControlError::Conflict`] when it is not half made.
    ///
    /// # Cancel safety
    /// As [`Control::create_tenant`].
    pub async fn resume_provisioning(
        &self,
        actor: &Actor,
        id: &str,
    ) -> Result<CreatedTenant, ControlError> {
        actor.may_operate(Role::Admin)?;
        let (control, actor, id) = (self.clone(), actor.clone(), id.to_owned());
        let work = async move {
            let (tenant, keys) = control.go_on_with_keys(&actor, &id).await?;
            with_keys(tenant, keys)
        };
        finished(tokio::spawn(work)).await
    }

    async fn go_on_with_keys(
        &self,
        actor: &Actor,
        id: &str,
    ) -> Result<(TenantView, Vec<CreatedKey>), ControlError> {
        let mut turn = self.turn(id, Patience::None).await?;
        let made = match self.go_on(actor, &mut turn, id).await {
            Ok(found) => self.finish(actor, &mut turn, found, true).await,
            Err(error) => Err(error),
        };
        turn.end().await;
        made
    }

    pub(super) async fn go_on(
        &self,
        actor: &Actor,
        turn: &mut Turn,
        id: &str,
    ) -> Result<(TenantRow, Site), ControlError> {
        let row = known(registry::tenant(&mut turn.db, id).await?, id)?;
        if row.status != "provisioning" {
            return Err(ControlError::Conflict(format!(
                "tenant {id:?} is {}, not half made",
                row.status
            )));
        }
        let site = self.site(&mut turn.db, &row).await?;
        site.ground.probe().await?;
        let facts = json!({ "resumed": true });
        let event = event(actor, id, "ProvisioningStarted", Changes::default(), facts);
        registry::append(&mut turn.db, event).await?;
        Ok((row, site))
    }

    /// Writes everything that is decided and random before anything is made.
    async fn begin(
        &self,
        actor: &Actor,
        turn: &mut Turn,
        plan: &Plan,
    ) -> Result<(TenantRow, Site), ControlError> {
        if let Some(row) = registry::tenant(&mut turn.db, &plan.id).await? {
            return self.again(actor, turn, plan, &row).await;
        }
        let cluster = self
            .cluster_for(&mut turn.db, plan.cluster.as_deref())
            .await?;
        super::place::Ground::new(&cluster, &self.registry.keyring)?
            .probe()
            .await?;
        self.check_time_zone(&mut turn.db, &plan.change).await?;
        let shared = (
            cluster.schema_database.as_str(),
            cluster.row_database.as_str(),
        );
        let names = Names::new(plan.tier, names::token()?, shared);
        let mut tx = turn.begin().await?;
        if !self.seed(&mut tx, plan, &names, &cluster.name).await? {
            return Err(exists(&plan.id));
        }
        let columns = plan.change.columns();
        let row = registry::change_tenant(&mut tx, &plan.id, columns).await?;
        check_sizes(&row)?;
        let changes = Changes::between(&Map::new(), &tenant_record(&row));
        let created = event(actor, &row.id, "TenantCreated", changes, json!({}));
        registry::append(&mut tx, created).await?;
        let started = event(
            actor,
            &row.id,
            "ProvisioningStarted",
            Changes::default(),
            json!({}),
        );
        registry::append(&mut tx, started).await?;
        tx.commit().await?;
        let site = self.site(&mut turn.db, &row).await?;
        Ok((row, site))
    }

    /// What was asked for is there already: finished, or half made.
    async fn again(
        &self,
        actor: &Actor,
        turn: &mut Turn,
        plan: &Plan,
        row: &TenantRow,
    ) -> Result<(TenantRow, Site), ControlError> {
        if row.status != "provisioning" {
            return Err(exists(&plan.id));
        }
        let is_same = row.tier == plan.tier.as_str()
            && row.variant == variant_name(plan.variant)
            && plan
                .cluster
                .as_ref()
                .is_none_or(|name| *name == row.cluster);
        if !is_same {
            return Err(ControlError::Conflict(format!(
                "tenant {:?} was begun with tier {:?} in cluster {:?} and is half made; \
                 go on with it: pgusher tenant resume-provisioning {}; or remove it: pgusher tenant delete {}",
                row.id, row.tier, row.cluster, row.id, row.id
            )));
        }
        self.go_on(actor, turn, &plan.id).await
    }

    async fn seed(
        &self,
        db: &mut PgConnection,
        plan: &Plan,
        names: &Names,
        cluster: &str,
    ) -> Result<bool, ControlError> {
        let owner = format!("tenant:{}", plan.id);
        let keyring = &self.registry.keyring;
        let sealed = |what| match plan.variant {
            Variant::Own => secret::seal(keyring, &owner, what, &names::password()?).map(Some),
            Variant::Shared => Ok(None),
        };
        let (password, reader) = (
            sealed(secret::PASSWORD)?,
            sealed(secret::READ_ONLY_PASSWORD)?,
        );
        let salt = names::salt()?;
        let seed = TenantSeed {
            id: &plan.id,
            name: plan.change.name.as_deref().unwrap_or(&plan.id),
            tier: plan.tier.as_str(),
            variant: variant_name(plan.variant),
            cluster,
            database_name: &names.database,
            schema_name: names.schema.as_deref(),
            token: &names.token,
            role: &names.role,
            password: password.as_deref(),
            read_only_role: Some(&names.read_only_role),
            read_only_password: reader.as_deref(),
            scram_salt: &salt,
        };
        Ok(registry::insert_tenant(db, seed).await?)
    }

    /// Makes the place, applies the templates, and lets the tenant in.
    pub(super) async fn finish(
        &self,
        actor: &Actor,
        turn: &mut Turn,
        (row, site): (TenantRow, Site),
        has_keys: bool,
    ) -> Result<(TenantView, Vec<CreatedKey>), ControlError> {
        let provisioned = self.provision(&site).await;
        let made = match provisioned {
            Ok(made) => made,
            Err(error) => return Err(self.take_back(actor, turn, (&row, &site), error).await),
        };
        let mut tx = turn.begin().await?;
        let columns = Map::from_iter([
            ("status".to_owned(), json!("active")),
            ("template_version".to_owned(), json!(made.version)),
            ("open_holes".to_owned(), made.holes),
        ]);
        let after = registry::change_tenant(&mut tx, &row.id, columns).await?;
        let mut keys = Vec::new();
        if has_keys {
            let owner = NewKey {
                name: "default".to_owned(),
                ..NewKey::default()
            };
            for new in [owner, NewKey::reader()] {
                keys.push(self.write_key(&mut tx, &after, &new).await?);
            }
        }
        let changes = Changes::between(&tenant_record(&row), &tenant_record(&after));
        let id = row.id.as_str();
        let place = match tier_of(&row)? {
            Tier::Database => Some(("DatabaseCreated", json!({ "database": row.database_name }))),
            Tier::Schema => Some(("SchemaCreated", json!({ "schema": row.schema_name }))),
            Tier::Row => None,
        };
        if let Some((kind, facts)) = place {
            let made = event(actor, id, kind, Changes::default(), facts);
            registry::append(&mut tx, made).await?;
        }
        if let Some(facts) = made.migrated {
            let migrated = event(actor, id, "MigrationsCompleted", Changes::default(), facts);
            registry::append(&mut tx, migrated).await?;
        }
        for (_, key) in &keys {
            grant(&mut tx, actor, key, json!({})).await?;
        }
        let active = event(actor, id, "Activated", changes, json!({}));
        registry::append(&mut tx, active).await?;
        tx.commit().await?;
        let keys = keys.into_iter().map(|(key, _)| key).collect();
        Ok((TenantView::from(&after), keys))
    }

    async fn provision(&self, site: &Site) -> Result<Made, ControlError> {
        let holes = site.make().await;
        let holes = holes.map_err(|cause| upstream("its place can't be made", cause))?;
        let mut made = Made {
            holes: holes_value(&holes),
            version: 0,
            migrated: None,
        };
        if let Some(directory) = &self.templates {
            let applied = site.apply_templates(directory).await;
            let (from, to) =
                applied.map_err(|cause| upstream("its templates can't be applied", cause))?;
            made.version = to;
            made.migrated = Some(json!({ "from": from, "to": to }));
        }
        Ok(made)
    }

    /// Removes what was made of a tenant that can't be finished, and says so.
    async fn take_back(
        &self,
        actor: &Actor,
        turn: &mut Turn,
        (row, site): (&TenantRow, &Site),
        error: ControlError,
    ) -> ControlError {
        let (why, source) = match error {
            ControlError::Upstream { what, source } => (what, source),
            other => return other,
        };
        let (id, cluster) = (&row.id, &row.cluster);
        let removed = match site.unmake().await {
            Ok(()) => self.forget(actor, turn, row, "ProvisioningFailed").await,
            Err(cause) => Err(upstream("its place can't be removed", cause)),
        };
        let what = match removed {
            Ok(()) => {
                format!("tenant {id:?}: {why} in cluster {cluster:?}; everything was taken back")
            }
            Err(left) => {
                tracing::warn!(tenant = %id, error = %left, "a half made tenant is left");
                format!(
                    "tenant {id:?}: {why} in cluster {cluster:?}, and it could not be taken back ({left}); \
                     go on with it: pgusher tenant resume-provisioning {id}; or remove it: pgusher tenant delete {id}"
                )
            }
        };
        ControlError::Upstream { what, source }
    }

    /// Removes a tenant's row; its events stay.
    pub(super) async fn forget(
        &self,
        actor: &Actor,
        turn: &mut Turn,
        row: &TenantRow,
        kind: &str,
    ) -> Result<(), ControlError> {
        let mut tx = turn.begin().await?;
        let keys = registry::keys(&mut tx, &row.id).await?;
        let mut before = tenant_record(row);
        for key in &keys {
            before.extend(super::key_record(key));
        }
        registry::delete_tenant(&mut tx, &row.id).await?;
        let changes = Changes::between(&before, &Map::new());
        let gone = event(actor, &row.id, kind, changes, json!({}));
        registry::append(&mut tx, gone).await?;
        Ok(tx.commit().await?)
    }

    /// Tenants in the order of their ids; a tenant's own token sees its own. Needs the role
    /// `viewer`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn list_tenants(
        &self,
        actor: &Actor,
        page: Page,
    ) -> Result<Listed<TenantView>, ControlError> {
        if let Some(own) = &actor.tenant {
            let items = vec![self.tenant(actor, own.as_str()).await?];
            return Ok(Listed { items, next: None });
        }
        actor.may_operate(Role::Viewer)?;
        let (limit, rows) = page.rows()?;
        let after = page.after.unwrap_or_default();
        let mut db = self.registry.pool.acquire().await?;
        let rows = registry::tenants(&mut db, &after, rows).await?;
        let views = rows.iter().map(TenantView::from).collect();
        Ok(Listed::of(views, limit, |view: &TenantView| {
            view.id.clone()
        }))
    }

    /// A tenant. Needs the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn tenant(&self, actor: &Actor, id: &str) -> Result<TenantView, ControlError> {
        actor.may(Role::Viewer, id)?;
        let mut db = self.registry.pool.acquire().await?;
        let row = known(registry::tenant(&mut db, id).await?, id)?;
        Ok(TenantView::from(&row))
    }

    /// Changes what can be changed of a tenant. What concerns its limits and plan is an event of
    /// its own. Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// It is changed then, or it is not.
    pub async fn update_tenant(
        &self,
        actor: &Actor,
        id: &str,
        change: TenantChange,
    ) -> Result<TenantView, ControlError> {
        actor.may_operate(Role::Admin)?;
        self.change(actor, id, change, None).await
    }

    /// Changes how a tenant's servers are shared. Needs an operator with the role `manager`.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// It is changed then, or it is not.
    pub async fn resize_pool(
        &self,
        actor: &Actor,
        id: &str,
        change: PoolChange,
    ) -> Result<TenantView, ControlError> {
        actor.may_operate(Role::Manager)?;
        let kind = Some("ConnectionPoolResized");
        self.change(actor, id, change.into(), kind).await
    }

    async fn change(
        &self,
        actor: &Actor,
        id: &str,
        change: TenantChange,
        kind: Option<&str>,
    ) -> Result<TenantView, ControlError> {
        change.check()?;
        let mut tx = self.registry.pool.begin().await?;
        self.check_time_zone(&mut tx, &change).await?;
        let before = known(registry::lock_tenant(&mut tx, id).await?, id)?;
        if before.status == "terminated" {
            return Err(ControlError::Conflict(format!(
                "tenant {id:?} is terminated"
            )));
        }
        let after = registry::change_tenant(&mut tx, id, change.columns()).await?;
        check_sizes(&after)?;
        let changes = Changes::between(&tenant_record(&before), &tenant_record(&after));
        if changes.0.is_empty() {
            return Ok(TenantView::from(&before));
        }
        for (kind, changes) in kinds(changes, kind) {
            let changed = event(actor, id, kind, changes, json!({}));
            registry::append(&mut tx, changed).await?;
        }
        tx.commit().await?;
        Ok(TenantView::from(&after))
    }

    /// PostgreSQL refuses a login with a time zone that it does not know: that must be seen here.
    async fn check_time_zone(
        &self,
        db: &mut PgConnection,
        change: &TenantChange,
    ) -> Result<(), ControlError> {
        let Some(Some(zone)) = &change.time_zone else {
            return Ok(());
        };
        let query = sqlx::query_scalar::<_, bool>(
            "SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = $1)",
        );
        if query.bind(zone).fetch_one(db).await? {
            return Ok(());
        }
        Err(ControlError::Invalid {
            field: "time_zone".to_owned(),
            problem: format!("PostgreSQL knows no time zone {zone:?}; \"Europe/Zurich\" is one"),
        })
    }
}

/// What was made in the cluster.
struct Made {
    holes: Value,
    version: i64,
    migrated: Option<Value>,
}

fn exists(id: &str) -> ControlError {
    ControlError::Conflict(format!(
        "there is a tenant {id:?} already; choose another id, or make a key for it: pgusher key create {id}"
    ))
}

fn with_keys(tenant: TenantView, keys: Vec<CreatedKey>) -> Result<CreatedTenant, ControlError> {
    let [key, read_only_key] = <[CreatedKey; 2]>::try_from(keys).map_err(|_keys| {
        ControlError::Conflict(format!("tenant {:?} has no keys; make one", tenant.id))
    })?;
    Ok(CreatedTenant {
        tenant,
        url: key.url.clone(),
        read_only_url: read_only_key.url.clone(),
        key,
        read_only_key,
    })
}

/// The smallest pool must not be larger than the largest.
fn check_sizes(row: &TenantRow) -> Result<(), ControlError> {
    let size = row.pool_size.unwrap_or(20);
    match row.min_pool_size {
        Some(min) if min > size => Err(ControlError::Invalid {
            field: "min_pool_size".to_owned(),
            problem: format!("{min} is more than pool_size, {size}"),
        }),
        _ => Ok(()),
    }
}

/// Splits changes by the events that tell them.
fn kinds(changes: Changes, kind: Option<&str>) -> Vec<(&str, Changes)> {
    if let Some(kind) = kind {
        return vec![(kind, changes)];
    }
    let (limits, others): (Map<_, _>, Map<_, _>) = changes
        .0
        .into_iter()
        .partition(|(field, _)| LIMITS.contains(&field.as_str()));
    let direction = direction(&limits);
    let all = [(direction, limits), ("ConfigUpdated", others)];
    let some = all.into_iter().filter(|(_, changes)| !changes.is_empty());
    some.map(|(kind, changes)| (kind, Changes(changes)))
        .collect()
}

/// Whether limits went up or down; a mixture is a new configuration.
fn direction(limits: &Map<String, Value>) -> &'static str {
    let steps = limits.values().filter_map(|change| {
        let [before, after] = ["before", "after"].map(|side| change.get(side)?.as_i64());
        Some(after? > before?)
    });
    let steps: Vec<bool> = steps.collect();
    match (steps.contains(&true), steps.contains(&false)) {
        (true, false) => "ScaledUp",
        (false, true) => "ScaledDown",
        _ => "ConfigUpdated",
    }
}

/// An event that concerns a tenant.
pub(super) fn event<'a>(
    actor: &'a Actor,
    tenant: &'a str,
    kind: &'a str,
    changes: Changes,
    facts: Value,
) -> NewEvent<'a> {
    NewEvent {
        tenant: Some(tenant),
        kind,
        actor: &actor.name,
        address: &actor.address,
        changes,
        facts,
    }
}

/// What a task of our own came to, which nobody cancels.
pub(super) async fn finished<T>(
    task: tokio::task::JoinHandle<Result<T, ControlError>>,
) -> Result<T, ControlError> {
    match task.await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(ControlError::Conflict(
            "pgusher is shutting down; try again".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_tenant_is_read_with_every_field_known() {
        let new: NewTenant = serde_json::from_value(
            json!({"id": "acme", "tier": "row", "pool_size": 5, "owner_email": null}),
        )
        .unwrap();
        assert_eq!(new.change.pool_size, Some(Some(5)));
        assert_eq!(new.change.owner_email, Some(None));
        for (wrong, says) in [
            (json!({"id": "acme"}), "missing field `tier`"),
            (json!({"id": 3, "tier": "row"}), "id must be a string"),
            (json!({"id": "a", "tier": "row", "colour": 1}), "colour"),
        ] {
            let error = serde_json::from_value::<NewTenant>(wrong).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn limits_that_all_go_one_way_are_scaling() {
        let change = |before: i64, after: i64| json!({"before": before, "after": after});
        let told = |fields: Value| {
            let changes = Changes(fields.as_object().cloned().unwrap());
            let kinds = kinds(changes, None);
            kinds
                .into_iter()
                .map(|(kind, _)| kind.to_owned())
                .collect::<Vec<_>>()
        };
        let up = json!({"pool_size": change(1, 2), "max_client_connections": change(5, 6)});
        assert_eq!(told(up), ["ScaledUp"]);
        assert_eq!(told(json!({"pool_size": change(2, 1)})), ["ScaledDown"]);
        let both = json!({"pool_size": change(2, 1), "name": change(1, 2)});
        assert_eq!(told(both), ["ScaledDown", "ConfigUpdated"]);
        let mixed = json!({"pool_size": change(2, 1), "max_client_connections": change(5, 6)});
        assert_eq!(told(mixed), ["ConfigUpdated"]);
    }
}

//! Tenants are made, gone on with, or taken back.

use super::{
    Actor, Control, ControlError, CreatedKey, CreatedTenant, NewKey, NewTenant, Role, TenantView,
    keys::{grant, known},
    names::{self, Names},
    new_tenant::{Plan, variant_name},
    place::{Ground, Site, holes_value, tier_of, upstream},
    secret,
    standbys::check_read_replicas,
    tenants::{check_guarantees, check_sizes, check_time_zone, event, finished},
    turn::{Patience, Turn},
    view::tenant_record,
};
use crate::{
    provisioning::{self, Variant},
    registry::{self, Changes, TenantRow, TenantSeed},
    tenant::Tier,
};
use serde_json::{Map, Value, json};
use sqlx::PgConnection;

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
        self.registry.check_keyring().await?;
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
        if let Some(why) = self.lacks_templates(&mut turn.db, &row).await? {
            return Err(ControlError::Conflict(why));
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
        Ground::new(&cluster, &self.registry.keyring)?
            .probe()
            .await?;
        check_time_zone(&mut turn.db, &plan.change).await?;
        check_read_replicas(&plan.change, &cluster)?;
        let trial = self.trial(&mut turn.db, plan).await?;
        let templates = self.newest_template(plan.tier)?;
        let shared = (
            cluster.schema_database.as_str(),
            cluster.row_database.as_str(),
        );
        let names = Names::new(plan.tier, names::token()?, shared);
        let mut tx = turn.begin().await?;
        if !self.seed(&mut tx, plan, &names, &cluster.name).await? {
            return Err(exists(&plan.id));
        }
        let mut columns = plan.change.columns();
        columns.extend(trial.map(|end| ("trial_ends_at".to_owned(), json!(end))));
        let row = registry::change_tenant(&mut tx, &plan.id, columns).await?;
        check_sizes(&row)?;
        let plans = self.plans_in_force(&mut tx).await?;
        check_guarantees(&mut tx, &row, &plans).await?;
        let changes = Changes::between(&Map::new(), &tenant_record(&row));
        let created = event(actor, &row.id, "TenantCreated", changes, json!({}));
        registry::append(&mut tx, created).await?;
        let started = event(
            actor,
            &row.id,
            "ProvisioningStarted",
            Changes::default(),
            json!({ "templates": templates }),
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

    /// The newest version of a tier's templates; 0: there are none.
    fn newest_template(&self, tier: Tier) -> Result<i64, ControlError> {
        let Some(directory) = &self.templates else {
            return Ok(0);
        };
        let newest = provisioning::templates::newest(directory, tier);
        newest.map_err(|cause| upstream("its templates can't be read", cause.into()))
    }

    /// Why a half made tenant can't be gone on with here: it was begun with templates that are not
    /// here, and would be left without its tables.
    pub(super) async fn lacks_templates(
        &self,
        db: &mut PgConnection,
        row: &TenantRow,
    ) -> Result<Option<String>, ControlError> {
        let begun = registry::begun_with_templates(db, &row.id).await?;
        if begun == 0 || begun <= self.newest_template(tier_of(row)?)? {
            return Ok(None);
        }
        let id = &row.id;
        Ok(Some(format!(
            "tenant {id:?} was begun with templates up to version {begun}, which are not here: go on with it where [templates] in proxy.toml names them, or remove it: pgusher tenant delete {id}"
        )))
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
            Ok(()) => {
                let told = ("ProvisioningFailed", json!({}));
                self.forget(actor, turn, row, told).await
            }
            Err(cause) => Err(upstream("its place can't be removed", cause)),
        };
        let what = match removed {
            Ok(()) => {
                format!("tenant {id:?}: {why} in cluster {cluster:?}; everything was taken back")
            }
            Err(left) => {
                let left = left.with_causes();
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
        (kind, facts): (&str, Value),
    ) -> Result<(), ControlError> {
        let mut tx = turn.begin().await?;
        let keys = registry::keys(&mut tx, &row.id).await?;
        let mut before = tenant_record(row);
        for key in &keys {
            before.extend(super::key_record(key));
        }
        registry::delete_tenant(&mut tx, &row.id).await?;
        let changes = Changes::between(&before, &Map::new());
        let gone = event(actor, &row.id, kind, changes, facts);
        registry::append(&mut tx, gone).await?;
        Ok(tx.commit().await?)
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

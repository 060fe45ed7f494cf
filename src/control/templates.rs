//! Use cases for the tenants' tables: templates applied to all of them, tables protected.

use super::{
    Actor, Control, ControlError, Role,
    lifecycle::write,
    place::{Cause, Ground, upstream},
    turn::{TURNS, Turn},
};
use crate::{
    provisioning::{
        self, ProtectError, ProtectStep,
        templates::{self, Pending},
    },
    registry::{self, TenantRow},
};
use serde::Serialize;
use serde_json::json;
use std::{num::NonZeroUsize, path::PathBuf, sync::Arc};
use tokio::task::JoinSet;

/// Tenants read from the registry at a time.
const PAGE: i64 = 500;

/// Which tenants get their templates, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// So many at the same time; more than 8 are 8.
    pub parallel: NonZeroUsize,
    /// Look only, change nothing.
    pub is_dry_run: bool,
    /// These alone, also where `auto_update` is off; empty: all that have it on.
    pub tenants: Vec<String>,
}

/// One tenant whose templates were applied, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MigratedTenant {
    /// Its id.
    pub tenant: String,
    /// The version before; 0: none.
    pub from: i64,
    /// The version after.
    pub to: i64,
    /// A dry run: what would be applied, as `<version>_<name>`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<String>,
}

/// One tenant whose templates were not all applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedTenant {
    /// Its id.
    pub tenant: String,
    /// Why.
    pub reason: String,
}

/// What a migration of tenants came to, each list in the order of the ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MigrationOutcome {
    /// Up to date now (or, as a dry run, would be).
    pub done: Vec<MigratedTenant>,
    /// Not.
    pub failed: Vec<FailedTenant>,
    /// Left out, as their `auto_update` is off.
    pub skipped: Vec<String>,
}

/// What is told while it goes on: tenants that are ready, and how many there are.
pub type Progress = Box<dyn Fn(u64, u64) + Send>;

impl Control {
    /// Applies the templates to the tenants that are active or suspended. One that fails does not
    /// keep the others. Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`] when it can't begin; what fails for a tenant is in the outcome.
    ///
    /// # Cancel safety
    /// Tenants that were begun go on in the background; run it again for the others.
    pub async fn migrate_tenants(
        &self,
        actor: &Actor,
        migration: Migration,
        progress: Progress,
    ) -> Result<MigrationOutcome, ControlError> {
        actor.may_operate(Role::Admin)?;
        let directory = self.templates.clone();
        let directory: Arc<PathBuf> = Arc::new(directory.ok_or_else(|| ControlError::Invalid {
            field: "templates".to_owned(),
            problem: "no directory is configured; write templates = \"DIR\" into [registry] or the file that was named"
                .to_owned(),
        })?);
        let (ids, skipped) = self.chosen(&migration.tenants).await?;
        let mut outcome = MigrationOutcome {
            skipped,
            ..MigrationOutcome::default()
        };
        let count = ids.len() as u64;
        let (mut waiting, mut running) = (ids.into_iter(), JoinSet::new());
        let parallel = migration.parallel.get().min(TURNS);
        let mut ready = 0;
        progress(ready, count);
        loop {
            while running.len() < parallel
                && let Some(id) = waiting.next()
            {
                let (control, actor) = (self.clone(), actor.clone());
                let (directory, is_dry_run) = (Arc::clone(&directory), migration.is_dry_run);
                running.spawn(async move {
                    let one = Box::pin(control.migrate_one(&actor, &id, directory, is_dry_run));
                    one.await.map_err(|error| FailedTenant {
                        tenant: id,
                        reason: chain(&error),
                    })
                });
            }
            match running.join_next().await {
                Some(Ok(Ok(done))) => outcome.done.push(done),
                Some(Ok(Err(failed))) => outcome.failed.push(failed),
                // A task that panicked has told so itself; its tenant is in neither list.
                Some(Err(error)) => outcome.failed.push(FailedTenant {
                    tenant: String::new(),
                    reason: error.to_string(),
                }),
                None => break,
            }
            ready += 1;
            progress(ready, count);
        }
        outcome.done.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        outcome.failed.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        Ok(outcome)
    }

    /// The tenants that are meant, and those left out.
    async fn chosen(&self, named: &[String]) -> Result<(Vec<String>, Vec<String>), ControlError> {
        let mut db = self.registry.pool.acquire().await?;
        if !named.is_empty() {
            for id in named {
                let row = registry::tenant(&mut db, id).await?;
                row.filter(is_there).ok_or_else(|| ControlError::NotFound {
                    what: "tenant",
                    id: id.clone(),
                })?;
            }
            return Ok((named.to_vec(), Vec::new()));
        }
        let (mut chosen, mut skipped) = (Vec::new(), Vec::new());
        let mut after = String::new();
        loop {
            let page = registry::tenants(&mut db, &after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok((chosen, skipped));
            };
            after.clone_from(&last.id);
            for row in page.into_iter().filter(is_there) {
                let list = if row.auto_update {
                    &mut chosen
                } else {
                    &mut skipped
                };
                list.push(row.id);
            }
        }
    }

    async fn migrate_one(
        &self,
        actor: &Actor,
        id: &str,
        directory: Arc<PathBuf>,
        is_dry_run: bool,
    ) -> Result<MigratedTenant, ControlError> {
        if is_dry_run {
            return self.look_one(id, &directory).await;
        }
        self.in_turn(actor, id, |control, actor, mut turn, row| async move {
            let done = control.migrate_in(&actor, &mut turn, row, &directory).await;
            (turn, done)
        })
        .await
    }

    async fn look_one(
        &self,
        id: &str,
        directory: &std::path::Path,
    ) -> Result<MigratedTenant, ControlError> {
        let mut db = self.registry.pool.acquire().await?;
        let row = registry::tenant(&mut db, id).await?;
        let row = row.ok_or_else(|| ControlError::NotFound {
            what: "tenant",
            id: id.to_owned(),
        })?;
        let site = self.site(&mut db, &row).await?;
        drop(db);
        let looked = templates::pending(&site.ground.admin, &site.place, directory).await;
        let (from, pending) = looked.map_err(|cause| failed(&row, cause.into()))?;
        let named = |it: &Pending| format!("{:04}_{}", it.version, it.name);
        Ok(MigratedTenant {
            tenant: row.id,
            from,
            to: pending.last().map_or(from, |last| last.version),
            pending: pending.iter().map(named).collect(),
        })
    }

    async fn migrate_in(
        &self,
        actor: &Actor,
        turn: &mut Turn,
        row: TenantRow,
        directory: &std::path::Path,
    ) -> Result<MigratedTenant, ControlError> {
        // It may have ended since it was chosen.
        if !is_there(&row) {
            return Err(ControlError::Conflict(format!("it is {}", row.status)));
        }
        let site = self.site(&mut turn.db, &row).await?;
        let applied = site.apply_templates(directory).await;
        let (from, to) = applied.map_err(|cause| failed(&row, cause))?;
        // Of a shared database another tenant was the first, or an earlier run ended before this.
        if row.template_version != to {
            let columns = json!({ "template_version": to });
            let facts = json!({ "from": row.template_version, "to": to });
            write(turn, actor, &row, ("MigrationsCompleted", columns, facts)).await?;
        }
        Ok(MigratedTenant {
            tenant: row.id,
            from: from.min(row.template_version),
            to,
            pending: Vec::new(),
        })
    }

    /// What protecting tables of a cluster's row database would do, or did. `assign` is the tenant
    /// whose the rows are that are there. Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError::Conflict`] tells what stands in the way; nothing was changed then.
    ///
    /// # Cancel safety
    /// All tables are protected, or none.
    pub async fn protect(
        &self,
        actor: &Actor,
        protection: &Protection,
    ) -> Result<Vec<ProtectStep>, ControlError> {
        actor.may_operate(Role::Admin)?;
        let mut db = self.registry.pool.acquire().await?;
        let name = self
            .one_cluster(&mut db, protection.cluster.as_deref())
            .await?;
        let missing = |what, id: &str| ControlError::NotFound {
            what,
            id: id.to_owned(),
        };
        let cluster = registry::cluster(&mut db, &name).await?;
        let cluster = cluster.ok_or_else(|| missing("cluster", &name))?;
        let token = match &protection.assign {
            None => None,
            Some(id) => {
                let row = registry::tenant(&mut db, id).await?;
                let row = row.ok_or_else(|| missing("tenant", id))?;
                if row.tier != "row" || row.database_name != cluster.row_database {
                    return Err(ControlError::Invalid {
                        field: "assign".to_owned(),
                        problem: format!("tenant {id:?} has no rows in that database"),
                    });
                }
                Some(row.token)
            }
        };
        drop(db);
        let ground = Ground::new(&cluster, &self.registry.keyring)?;
        let (admin, database) = (&ground.admin, &cluster.row_database);
        let (tables, token) = (&protection.tables, token.as_deref());
        let done = if protection.is_dry_run {
            provisioning::plan_protection(admin, database, tables, token).await
        } else {
            provisioning::protect(admin, database, tables, token).await
        };
        done.map_err(|error| match error {
            ProtectError::Provisioning(cause) => upstream(
                format!("the tables can't be protected in cluster {name:?}"),
                cause.into(),
            ),
            other => ControlError::Conflict(other.to_string()),
        })
    }

    /// The cluster that is named, or the only one.
    async fn one_cluster(
        &self,
        db: &mut sqlx::PgConnection,
        named: Option<&str>,
    ) -> Result<String, ControlError> {
        if let Some(name) = named {
            return Ok(name.to_owned());
        }
        let mut clusters = registry::clusters(db).await?;
        match (clusters.pop(), clusters.is_empty()) {
            (Some(only), true) => Ok(only.name),
            _ => Err(ControlError::Invalid {
                field: "cluster".to_owned(),
                problem: "there is not exactly one: name it".to_owned(),
            }),
        }
    }
}

/// Which tables are to be protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    /// The cluster; `None`: the only one.
    pub cluster: Option<String>,
    /// Their names, alone or behind a schema and a dot.
    pub tables: Vec<String>,
    /// The tenant whose the rows are that are there.
    pub assign: Option<String>,
    /// Look only, change nothing.
    pub is_dry_run: bool,
}

fn is_there(row: &TenantRow) -> bool {
    matches!(row.status.as_str(), "active" | "suspended")
}

fn failed(row: &TenantRow, cause: Cause) -> ControlError {
    let what = format!(
        "its templates can't be applied in cluster {:?}",
        row.cluster
    );
    upstream(what, cause)
}

/// An error with what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

//! Use cases for tenants that are there: list, show, change.

use super::{
    Actor, Control, ControlError, Listed, Page, PoolChange, Role, TenantChange, TenantView,
    change::LIMITS, clusters, fullness, keys::known, standbys, view::tenant_record,
};
use crate::{
    registry::{self, Changes, NewEvent, TenantRow},
    tenant::{Limits, Plans},
};
use serde_json::{Map, Value, json};
use sqlx::PgConnection;

impl Control {
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
        check_time_zone(&mut tx, &change).await?;
        if let Some(plan) = &change.plan {
            self.check_plan(&mut tx, plan).await?;
        }
        let before = known(registry::lock_tenant(&mut tx, id).await?, id)?;
        if before.status == "terminated" {
            return Err(ControlError::Conflict(format!(
                "tenant {id:?} is terminated"
            )));
        }
        if change.read_replicas.is_some() {
            let cluster = clusters::one(&mut tx, &before.cluster).await?;
            standbys::check_read_replicas(&change, &cluster)?;
        }
        let after = registry::change_tenant(&mut tx, id, change.columns()).await?;
        check_sizes(&after)?;
        let changes = Changes::between(&tenant_record(&before), &tenant_record(&after));
        if changes.0.is_empty() {
            return Ok(TenantView::from(&before));
        }
        let is_same_plan = after.plan == before.plan;
        let plans = self.plans_in_force(&mut tx).await?;
        if after.guaranteed_servers != before.guaranteed_servers || !is_same_plan {
            check_guarantees(&mut tx, &after, &plans).await?;
        }
        // Ahead of the events, which wait for all others that are written.
        if after.max_storage_bytes != before.max_storage_bytes || !is_same_plan {
            fullness::judge_again(&mut tx, actor, (&after, &plans)).await?;
        }
        for (kind, changes) in kinds(changes, kind) {
            let told = event(actor, id, kind, changes, json!({}));
            registry::append(&mut tx, told).await?;
        }
        tx.commit().await?;
        Ok(TenantView::from(&after))
    }
}

/// PostgreSQL refuses a login with a time zone that it does not know: that must be seen here.
pub(super) async fn check_time_zone(
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

/// The smallest pool must not be larger than the largest.
pub(super) fn check_sizes(row: &TenantRow) -> Result<(), ControlError> {
    let size = i64::from(row.pool_size.unwrap_or_default());
    let size = if row.pool_size.is_some() {
        size
    } else {
        Limits::default().pool_size.into()
    };
    match row.min_pool_size {
        Some(min) if i64::from(min) > size => Err(ControlError::Invalid {
            field: "min_pool_size".to_owned(),
            problem: format!("{min} is more than pool_size, {size}"),
        }),
        _ => Ok(()),
    }
}

/// Places that a tenant is promised, by itself or by its plan, must be there.
pub(super) async fn check_guarantees(
    db: &mut PgConnection,
    row: &TenantRow,
    plans: &Plans,
) -> Result<(), ControlError> {
    let wanted = promised(row.guaranteed_servers, &row.plan, plans);
    if wanted == 0 {
        return Ok(());
    }
    let found = promises(db, &row.cluster, (Some(&row.id), plans)).await?;
    // A cluster of the proxy's file is checked there.
    let Some((max, others)) = found.filter(|(max, others)| wanted + others > *max) else {
        return Ok(());
    };
    Err(ControlError::Invalid {
        field: "guaranteed_servers".to_owned(),
        problem: format!(
            "{wanted}: with the {others} of other tenants it is more than max_server_connections of the \
             cluster, {max}; guarantee at most {}",
            (max - others).max(0)
        ),
    })
}

/// Places that a plan which is about to be another promises its tenants must be there, in each cluster.
pub(super) async fn check_promises(
    db: &mut PgConnection,
    plan: &str,
    plans: &Plans,
) -> Result<(), ControlError> {
    let query = sqlx::query_scalar("SELECT DISTINCT cluster FROM pgusher.tenant WHERE plan = $1");
    let clusters: Vec<String> = query.bind(plan).fetch_all(&mut *db).await?;
    for cluster in clusters {
        let found = promises(db, &cluster, (None, plans)).await?;
        if let Some((max, all)) = found.filter(|(max, all)| all > max) {
            return Err(ControlError::Invalid {
                field: "guaranteed_servers".to_owned(),
                problem: format!(
                    "all tenants of cluster {cluster:?} together would be promised {all}, more than its \
                     max_server_connections, {max}"
                ),
            });
        }
    }
    Ok(())
}

fn promised(own: Option<i32>, plan: &str, plans: &Plans) -> i64 {
    let planned = || plans.get(plan).and_then(|plan| plan.guaranteed_servers);
    let planned = || planned().and_then(|value| i64::try_from(value).ok());
    own.map(i64::from).or_else(planned).unwrap_or(0)
}

/// What a cluster of the registry has, and what its tenants are promised, but for this one.
async fn promises(
    db: &mut PgConnection,
    cluster: &str,
    (but, plans): (Option<&str>, &Plans),
) -> Result<Option<(i64, i64)>, ControlError> {
    let query =
        sqlx::query_scalar("SELECT max_server_connections FROM pgusher.cluster WHERE name = $1");
    let max: Option<i32> = query.bind(cluster).fetch_optional(&mut *db).await?;
    let Some(max) = max else {
        return Ok(None);
    };
    let query = sqlx::query_as::<_, (Option<i32>, String, i64)>(
        "SELECT guaranteed_servers, plan, count(*) FROM pgusher.tenant
         WHERE cluster = $1 AND id IS DISTINCT FROM $2 GROUP BY 1, 2",
    );
    let all = query.bind(cluster).bind(but).fetch_all(db).await?;
    let sums = all
        .iter()
        .map(|(own, plan, count)| promised(*own, plan, plans) * count);
    Ok(Some((i64::from(max), sums.sum())))
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

/// Limits that are none where they are 0.
const NONE_AT_0: [&str; 8] = [
    "max_concurrent_queries",
    "transactions_per_second",
    "transactions_per_hour",
    "bytes_per_second",
    "logins_per_second",
    "max_storage_bytes",
    "queries_per_month",
    "transactions_per_month",
];

/// Whether limits went up or down; a mixture is a new configuration.
fn direction(limits: &Map<String, Value>) -> &'static str {
    let steps = limits.iter().filter_map(|(field, change)| {
        let [before, after] = ["before", "after"].map(|side| {
            let value = change.get(side).and_then(Value::as_i64);
            let value = value.filter(|value| *value > 0 || !NONE_AT_0.contains(&field.as_str()));
            value.or_else(|| default_limit(field))
        });
        let (before, after) = (before?, after?);
        (before != after).then_some(after > before)
    });
    let steps: Vec<bool> = steps.collect();
    match (steps.contains(&true), steps.contains(&false)) {
        (true, false) => "ScaledUp",
        (false, true) => "ScaledDown",
        _ => "ConfigUpdated",
    }
}

/// What counts where a limit is not given.
fn default_limit(field: &str) -> Option<i64> {
    let limits = Limits::default();
    let value = match field {
        "pool_size" => limits.pool_size,
        "min_pool_size" => limits.min_pool_size,
        "guaranteed_servers" => limits.guaranteed_servers,
        "weight" => limits.weight,
        "max_client_connections" => limits.max_client_connections,
        "max_prepared_statements" => limits.max_prepared_statements,
        "max_pinned_servers" => limits.max_pinned_servers,
        "max_waiting" => limits.max_waiting,
        _ if NONE_AT_0.contains(&field) => return Some(i64::MAX),
        _ => return None,
    };
    Some(value.into())
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

/// An event that concerns no tenant.
pub(super) fn event_of_none<'a>(
    actor: &'a Actor,
    kind: &'a str,
    changes: Changes,
    facts: Value,
) -> NewEvent<'a> {
    NewEvent {
        tenant: None,
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
        assert_eq!(
            told(json!({"max_concurrent_queries": change(0, 5)})),
            ["ScaledDown"]
        );
        let none = json!({"before": 5, "after": null});
        assert_eq!(told(json!({"bytes_per_second": none})), ["ScaledUp"]);
        let mixed = json!({"pool_size": change(2, 1), "max_client_connections": change(5, 6)});
        assert_eq!(told(mixed), ["ConfigUpdated"]);
    }
}

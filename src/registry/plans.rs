//! Reading and writing `pgusher.plan`, and the plans that hold in this process.

use super::RegistryError;
use crate::tenant::{Plan, Plans};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use sqlx::{PgConnection, PgPool, types::Json};
use std::sync::Arc;

fn plan_of(name: String, Json(mut plan): Json<Plan>) -> Plan {
    plan.name = name;
    plan
}

/// The registry's own plans, by name. A row that can't be read is left out, and the log says so.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn plans(db: &mut PgConnection) -> Result<Vec<Plan>, RegistryError> {
    let query = sqlx::query_as::<_, (String, serde_json::Value)>(
        "SELECT name, terms FROM pgusher.plan ORDER BY name COLLATE \"C\"",
    );
    let rows = query.fetch_all(db).await?.into_iter();
    let read = rows.filter_map(|(name, terms)| match serde_json::from_value(terms) {
        Ok(plan) => Some(plan_of(name, Json(plan))),
        Err(error) => {
            tracing::error!(plan = name, %error, "a plan can't be read");
            None
        }
    });
    Ok(read.collect())
}

/// The plan of this name, locked until the transaction ends.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn lock_plan(db: &mut PgConnection, name: &str) -> Result<Option<Plan>, RegistryError> {
    let query = sqlx::query_as::<_, (String, Json<Plan>)>(
        "SELECT name, terms FROM pgusher.plan WHERE name = $1 FOR UPDATE",
    );
    let row = query.bind(name).fetch_optional(db).await?;
    Ok(row.map(|(name, plan)| plan_of(name, plan)))
}

/// Writes a plan in the place of the one of its name.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn put_plan(db: &mut PgConnection, plan: &Plan) -> Result<(), RegistryError> {
    let query = sqlx::query(
        "INSERT INTO pgusher.plan AS p (name, terms) VALUES ($1, $2::jsonb - 'name')
         ON CONFLICT (name) DO UPDATE SET terms = excluded.terms, updated_at = now()",
    );
    let query = query.bind(&plan.name).bind(Json(plan));
    query.execute(db).await?;
    Ok(())
}

/// Removes a plan; whether there was one.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn remove_plan(db: &mut PgConnection, name: &str) -> Result<bool, RegistryError> {
    let query = sqlx::query("DELETE FROM pgusher.plan WHERE name = $1");
    Ok(query.bind(name).execute(db).await?.rows_affected() == 1)
}

/// Who has this plan: at most five of them.
///
/// # Errors
/// [`RegistryError::Database`].
pub async fn tenants_with_plan(
    db: &mut PgConnection,
    name: &str,
) -> Result<Vec<String>, RegistryError> {
    let query = sqlx::query_scalar(
        "SELECT id FROM pgusher.tenant WHERE plan = $1 AND status <> 'terminated' ORDER BY id LIMIT 5",
    );
    Ok(query.bind(name).fetch_all(db).await?)
}

/// The plans that hold: the registry's over the file's over the presets.
#[derive(Debug, Default)]
pub(super) struct InForce {
    both: Mutex<(Plans, Vec<Plan>)>,
    now: ArcSwap<Plans>,
}

impl InForce {
    /// As they are now: the same value until one changes.
    pub(super) fn now(&self) -> Arc<Plans> {
        self.now.load_full()
    }

    /// Takes over those of the file, with the presets; whether anything changed.
    pub(super) fn take_file(&self, plans: Plans) -> bool {
        self.change(|both| both.0 = plans)
    }

    /// Takes over those of the registry; whether anything changed.
    pub(super) fn take_registry(&self, plans: Vec<Plan>) -> bool {
        self.change(|both| both.1 = plans)
    }

    /// Those of the registry.
    pub(super) fn registry(&self) -> Vec<Plan> {
        self.both.lock().1.clone()
    }

    fn change(&self, change: impl FnOnce(&mut (Plans, Vec<Plan>))) -> bool {
        let mut both = self.both.lock();
        change(&mut both);
        let mut plans = both.0.clone();
        plans.put(both.1.iter().cloned());
        let has_changed = plans != **self.now.load();
        if has_changed {
            self.now.store(Arc::new(plans));
        }
        has_changed
    }
}

/// The registry's own plans, for who keeps a copy.
pub(super) async fn all(pool: &PgPool) -> Result<Vec<Plan>, RegistryError> {
    let mut db = pool.acquire().await?;
    plans(&mut db).await
}

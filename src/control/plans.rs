//! Plans: those of the registry stand over those of `proxy.toml`, and those over the presets.

use super::{
    Actor, Control, ControlError, Listed, Role, new_tenant,
    tenants::{check_promises, event_of_none},
};
use crate::{
    registry::{self, Changes},
    tenant::{CUSTOM, Plan, Plans},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sqlx::PgConnection;
use std::time::SystemTime;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use utoipa::ToSchema;

/// Where a plan is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlanOrigin {
    /// In the registry.
    Registry,
    /// In `proxy.toml`, or it is a preset.
    Proxy,
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PlanView {
    /// What it gives.
    #[serde(flatten)]
    pub plan: Plan,
    /// Where it is said.
    pub origin: PlanOrigin,
}

fn not_found(name: &str) -> ControlError {
    ControlError::NotFound {
        what: "plan",
        id: name.to_owned(),
    }
}

fn record(plan: Option<&Plan>) -> Map<String, Value> {
    match plan.map(serde_json::to_value) {
        Some(Ok(Value::Object(fields))) => fields,
        _ => Map::new(),
    }
}

impl Control {
    /// All plans, by name. Needs an operator with the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn list_plans(&self, actor: &Actor) -> Result<Listed<PlanView>, ControlError> {
        actor.may_operate(Role::Viewer)?;
        let mut db = self.registry.pool.acquire().await?;
        let own = registry::plans(&mut db).await?;
        let mut all = Plans::clone(&self.plans.load());
        all.put(own.iter().cloned());
        let view = |plan: &Plan| PlanView {
            plan: plan.clone(),
            origin: if own.iter().any(|own| own.name == plan.name) {
                PlanOrigin::Registry
            } else {
                PlanOrigin::Proxy
            },
        };
        Ok(Listed {
            items: all.iter().map(view).collect(),
            next: None,
        })
    }

    /// A plan. Needs an operator with the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn plan(&self, actor: &Actor, name: &str) -> Result<PlanView, ControlError> {
        let plans = self.list_plans(actor).await?.items.into_iter();
        let mut plans = plans.filter(|view| view.plan.name == name);
        plans.next().ok_or_else(|| not_found(name))
    }

    /// Writes a plan to the registry, in the place of the one of its name. It holds at once for the
    /// tenants that have it. Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// It is written then, or it is not.
    pub async fn set_plan(&self, actor: &Actor, plan: Plan) -> Result<PlanView, ControlError> {
        actor.may_operate(Role::Admin)?;
        check(&plan)?;
        let mut tx = self.registry.pool.begin().await?;
        let before = registry::lock_plan(&mut tx, &plan.name).await?;
        let changes = Changes::between(&record(before.as_ref()), &record(Some(&plan)));
        if !changes.0.is_empty() {
            if changes.0.contains_key("guaranteed_servers") {
                let mut plans = self.plans_in_force(&mut tx).await?;
                plans.put([plan.clone()]);
                check_promises(&mut tx, &plan.name, &plans).await?;
            }
            registry::put_plan(&mut tx, &plan).await?;
            let told = event_of_none(actor, "PlanSet", changes, json!({ "plan": plan.name }));
            registry::append(&mut tx, told).await?;
            tx.commit().await?;
        }
        Ok(PlanView {
            plan,
            origin: PlanOrigin::Registry,
        })
    }

    /// Removes a plan from the registry. Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`]; [`ControlError::Conflict`] while tenants have it and `proxy.toml` has none of
    /// that name.
    ///
    /// # Cancel safety
    /// It is removed then, or it is not.
    pub async fn remove_plan(&self, actor: &Actor, name: &str) -> Result<(), ControlError> {
        actor.may_operate(Role::Admin)?;
        let mut tx = self.registry.pool.begin().await?;
        let before = registry::lock_plan(&mut tx, name).await?;
        let before = before.ok_or_else(|| not_found(name))?;
        if self.plans.load().get(name).is_none() {
            let tenants = registry::tenants_with_plan(&mut tx, name).await?;
            if !tenants.is_empty() {
                return Err(ControlError::Conflict(format!(
                    "tenants have the plan {name:?}: {}; give them another one first",
                    tenants.join(", ")
                )));
            }
        }
        registry::remove_plan(&mut tx, name).await?;
        let changes = Changes::between(&record(Some(&before)), &Map::new());
        let told = event_of_none(actor, "PlanRemoved", changes, json!({ "plan": name }));
        registry::append(&mut tx, told).await?;
        Ok(tx.commit().await?)
    }

    /// The plans that hold: presets, `proxy.toml`, registry.
    pub(super) async fn plans_in_force(
        &self,
        db: &mut PgConnection,
    ) -> Result<Plans, ControlError> {
        let mut plans = Plans::clone(&self.plans.load());
        plans.put(registry::plans(db).await?);
        Ok(plans)
    }

    /// A tenant can be given plans that there are, and `custom`.
    pub(super) async fn check_plan(
        &self,
        db: &mut PgConnection,
        name: &str,
    ) -> Result<(), ControlError> {
        if name == CUSTOM {
            return Ok(());
        }
        let plans = self.plans_in_force(db).await?;
        if plans.get(name).is_some() {
            return Ok(());
        }
        Err(ControlError::Invalid {
            field: "plan".to_owned(),
            problem: format!(
                "there is no plan {name:?}; there are \"{}\"",
                plans.names().join("\", \"")
            ),
        })
    }

    /// When the trial of a new tenant ends, by its plan; `None`: it is said, or there is none.
    pub(super) async fn trial(
        &self,
        db: &mut PgConnection,
        new: &new_tenant::Plan,
    ) -> Result<Option<String>, ControlError> {
        let Some(name) = &new.change.plan else {
            return Ok(None);
        };
        self.check_plan(db, name).await?;
        let plans = self.plans_in_force(db).await?;
        let plan = plans
            .get(name)
            .filter(|_| new.change.trial_ends_at.is_none());
        let end = plan.and_then(|plan| plan.trial_from(SystemTime::now()));
        let end = end.map(OffsetDateTime::from);
        Ok(end.and_then(|end| end.format(&Rfc3339).ok()))
    }
}

fn check(plan: &Plan) -> Result<(), ControlError> {
    let invalid = |field: &str, problem: String| ControlError::Invalid {
        field: field.to_owned(),
        problem,
    };
    if !Plan::is_name(&plan.name) {
        let problem = format!(
            "{:?}: a plan has 1 to 63 of a-z, 0-9, \"_\" and \"-\", and is not \"custom\"",
            plan.name
        );
        return Err(invalid("name", problem));
    }
    match plan.out_of_bounds().next() {
        Some((field, value, min, max)) => Err(invalid(
            field,
            format!("{value}: it must be {min} to {max}"),
        )),
        None => Ok(()),
    }
}

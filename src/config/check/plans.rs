//! `[[plans]]`, and what a tenant has of one.

use super::{Check, Checked};
use crate::{
    config::{error::Fault, location::At, raw},
    tenant::{CUSTOM, Plan, Plans, Terms},
};
use std::{collections::HashSet, time::SystemTime};

impl Check<'_> {
    /// The file's own plans, without the presets.
    pub(super) fn plans(&mut self, plans: Vec<Plan>) -> Vec<Plan> {
        let top = At::top("plans");
        let mut seen = HashSet::with_capacity(plans.len());
        for (index, plan) in plans.iter().enumerate() {
            let at = top.entry(index, Some(&plan.name));
            self.unique(at.key("name"), &mut seen, &plan.name);
            if !Plan::is_name(&plan.name) {
                let value = plan.name.clone();
                self.note(at.key("name"), Fault::PlanName { value });
            }
            for (key, value, min, max) in plan.out_of_bounds() {
                self.note(at.key(key), Fault::Range { value, min, max });
            }
        }
        plans
    }

    /// The plan of a tenant; `None` for one without limits of its own.
    pub(super) fn plan_of<'a>(
        &mut self,
        at: At<'_>,
        plans: &'a Plans,
        name: Option<&str>,
    ) -> Option<&'a Plan> {
        let name = name.filter(|name| *name != CUSTOM)?;
        let plan = plans.get(name);
        if plan.is_none() {
            let (value, known) = (name.to_owned(), plans.names());
            self.note(at.key("plan"), Fault::UnknownPlan { value, known });
        }
        plan
    }

    /// What a tenant has agreed on; the plan's words are in the tuning already.
    pub(super) fn terms(
        &mut self,
        at: At<'_>,
        (tenant, plan): (&raw::Tenant, Option<&Plan>),
        tuning: &raw::Tuning,
    ) -> Checked<Terms> {
        let name = tenant.plan.as_deref().unwrap_or(CUSTOM);
        let own = (tuning.queries_per_month, tuning.transactions_per_month);
        Ok(Terms {
            trial_ends_at: self.trial_end(at, tenant.trial_ends_at.as_deref())?,
            ..Terms::new((name, plan), own)
        })
    }

    fn trial_end(&mut self, at: At<'_>, text: Option<&str>) -> Checked<Option<SystemTime>> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let Ok(time) = humantime::parse_rfc3339(text) else {
            let value = text.to_owned();
            return self.problem(at.key("trial_ends_at"), Fault::Time { value });
        };
        Ok(Some(time))
    }
}

//! Tenants on trial: who may still come in, and who is told that the end is near.

use crate::{limits, tenant::Tenant, wire::Refusal};
use std::time::SystemTime;

/// Whether the tenant's trial, if it is on one, goes on.
///
/// # Errors
/// 53400, with the time when it ended.
pub fn goes_on(tenant: &Tenant) -> Result<(), Refusal> {
    let over = match tenant.terms.trial_ends_at {
        Some(_) => tenant.terms.trial_over(SystemTime::now()),
        None => None,
    };
    over.map_or(Ok(()), |end| {
        Err(limits::trial_over(tenant.id.as_str(), end).into_fatal())
    })
}

/// What a client is told at login in the last days of its tenant's trial (a NOTICE).
pub fn ends_soon(tenant: &Tenant) -> Option<String> {
    let end = tenant.terms.trial_ends_at?;
    limits::trial_ends(tenant.id.as_str(), end, SystemTime::now())
}

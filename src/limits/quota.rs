//! What a client is told about its tenant's month and trial.

use super::refusals::{Limit, Whose};
use crate::{
    usage::{Standing, to_the_minute},
    wire::{Refusal, SqlState},
};
use std::time::{Duration, SystemTime};

/// Before its end a client is told at login that the trial ends.
const TRIAL_TOLD: Duration = Duration::from_hours(3 * 24);

/// The month is used up (53400).
pub fn used_up(standing: &Standing) -> Refusal {
    let Standing { quota, max, .. } = *standing;
    let resets = to_the_minute(standing.month.ends());
    let limit = Limit::Month(quota);
    limit
        .refused(SqlState::QUOTA, Whose::Tenant, max)
        .with_detail(format!(
            "So many {} are used in this month; it resets on {resets}. Ask for a larger quota, or wait \
             until then. SHOW pgusher.quota tells how much is left.",
            quota.what()
        ))
}

/// What a client is told when little is left (a NOTICE).
pub fn running_out(standing: &Standing) -> String {
    let Standing {
        quota, used, max, ..
    } = *standing;
    let resets = to_the_minute(standing.month.ends());
    format!(
        "{} of the tenant: {used} of {max} are used; it resets on {resets}",
        quota.name()
    )
}

/// The trial is over (53400).
pub fn trial_over(tenant: &str, end: SystemTime) -> Refusal {
    Limit::Trial.count("refused");
    let end = to_the_minute(end);
    let text = format!("the trial of tenant {tenant} ended on {end}");
    Refusal::error(SqlState::QUOTA, text).with_detail(
        "Its data is kept. Ask the operator for a plan, or for a later trial_ends_at.".to_owned(),
    )
}

/// What a client is told at login in the last days of a trial (a NOTICE).
pub fn trial_ends(tenant: &str, end: SystemTime, now: SystemTime) -> Option<String> {
    let left = end.duration_since(now).ok()?;
    let end = to_the_minute(end);
    (left <= TRIAL_TOLD).then(|| format!("the trial of tenant {tenant} ends on {end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_told_of_in_its_last_three_days() {
        let end = humantime::parse_rfc3339("2026-12-01T00:00:00Z").unwrap();
        let told = |before| trial_ends("acme", end, end - Duration::from_hours(before));
        assert_eq!(told(73), None);
        let text = told(72).unwrap();
        assert_eq!(
            text,
            "the trial of tenant acme ends on 2026-12-01 00:00 UTC"
        );
    }
}

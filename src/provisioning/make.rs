//! Makes a place, and verifies it by the attacks that matter.

use super::{
    Admin, Check, Hole, Place, Plan, Profile, ProvisioningError,
    attacks::When,
    attempts::{Attackers, Victim},
    harden::{self, Kind},
};

/// Makes a place and verifies it. Idempotent: what is there stays, what is missing is made, and
/// passwords, limits and settings become those of the place. A database that is shared is made with
/// its first tenant.
///
/// # Errors
/// [`ProvisioningError`]. What was made stays: run it again, or [`super::unmake`] it. What an admin
/// that is no superuser can't close is no error: it is returned.
///
/// # Cancel safety
/// Run it again.
pub async fn make(
    admin: &Admin,
    profile: Profile,
    place: &Place,
) -> Result<Vec<Hole>, ProvisioningError> {
    let plan = Plan::of(profile, place)?;
    let holes = match plan.go(admin, plan.steps().len()).await? {
        Some(mut session) => {
            let holes = harden::holes(&mut session, Kind::of(place.tier), profile).await?;
            session.end().await;
            holes
        }
        None => Vec::new(),
    };
    let Some(mut attackers) = Attackers::of(admin, place).await? else {
        return Ok(holes);
    };
    let victim = Victim::always_there(place);
    let checks = attackers
        .attack(place, &victim, When::Making, &holes)
        .await?;
    attackers.end().await;
    let leaks: Vec<Check> = checks.into_iter().filter(Check::is_leak).collect();
    if leaks.is_empty() {
        Ok(holes)
    } else {
        Err(ProvisioningError::Leaks(leaks))
    }
}

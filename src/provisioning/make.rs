//! Makes a place, and verifies it by the attacks that matter.

use super::{
    Admin, Hole, Place, Plan, Profile, ProvisioningError,
    harden::{self, Kind},
    logins,
};
use crate::tenant::Tier;

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
    plan.run_all(admin).await?;
    let mut session = admin.connect(&place.database).await?;
    let kind = match place.tier {
        Tier::Database => Kind::Own,
        Tier::Schema => Kind::Schemas,
        Tier::Row => Kind::Rows,
    };
    let holes = harden::holes(&mut session, kind, profile).await;
    session.end().await;
    for (login, _) in logins::logins(place) {
        admin.connect_as(login, &place.database).await?.end().await;
    }
    holes
}

//! Tier `row`: rows of its own in tables that it shares.

use super::{Place, Variant, logins, plan::Step};

/// What every database of the tier has.
pub(super) const PREPARE: &str = include_str!("sql/row.sql");

/// The steps. A tenant that uses slots needs nothing of its own but the database.
pub(super) fn steps(place: &Place) -> Vec<Step> {
    if place.variant == Variant::Shared {
        let nothing = "SELECT 1".to_owned();
        return vec![Step::new("look at the database", &place.database, nothing)];
    }
    let inside = logins::role_statements(place) + &logins::setting_statements(place);
    vec![
        Step::new("make the tenant's roles", &place.database, inside),
        Step::let_connect(place),
    ]
}

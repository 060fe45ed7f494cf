//! Rules that make the isolation hold, looked at as the admin.

use super::{Check, Outcome, Place, ProvisioningError, admin::Session, logins, text::fill};
use crate::{
    sql::{quoted_literal, quoted_name},
    tenant::Tier,
};

const ROLES: &str = include_str!("sql/audit_roles.sql");
const ROWS: &str = include_str!("sql/audit_rows.sql");

const CLUSTER: &str = include_str!("sql/audit_cluster.sql");

/// The rules of `audit_cluster.sql`.
const CLUSTER_RULES: [(&str, &str); 4] = [
    (
        "owners",
        "the roles that own what tenants share can't log in, and only the admin is a member of them",
    ),
    (
        "members",
        "no tenant's role is a member of anything but pgusher_tenants",
    ),
    ("attributes", "no tenant's role has an attribute"),
    ("group", "the role pgusher_tenants has no privilege"),
];

/// The rules of `audit_roles.sql`.
const ROLE_RULES: [(&str, &str); 5] = [
    (
        "settings",
        "its roles have the settings that they were given, and no other",
    ),
    (
        "members",
        "its roles are members of nothing but pgusher_tenants, and no tenant is a member of them",
    ),
    ("group", "the role pgusher_tenants has no privilege"),
    (
        "code",
        "no extension and no language that reaches further can be used",
    ),
    (
        "definers",
        "functions that run with their owner's rights have a search_path of their own",
    ),
];

/// The rules of `audit_rows.sql`.
const ROW_RULES: [(&str, &str); 9] = [
    (
        "row_security",
        "every shared table forces row-level security",
    ),
    (
        "policies",
        "the policies of shared tables ask for the tenant, are for everybody, and let no read-only login lock rows",
    ),
    (
        "grants",
        "nobody has a privilege on a shared table that would let it read past a policy or lock it",
    ),
    (
        "indexes",
        "every index of a shared table leads with tenant_id",
    ),
    (
        "foreign_keys",
        "every foreign key of a shared table leads with tenant_id",
    ),
    ("sequences", "no sequence counts for all tenants"),
    (
        "planner_statistics",
        "the planner keeps no statistics of the values in shared tables",
    ),
    (
        "views",
        "tenants use shared tables through views that are barriers",
    ),
    (
        "tenant",
        "the function that says who the tenant is belongs to pgusher",
    ),
];

/// Looks at the rules in the database of a session.
pub(super) async fn audit(
    session: &mut Session,
    place: &Place,
) -> Result<Vec<Check>, ProvisioningError> {
    let search_path = match place.tier {
        Tier::Row => None,
        Tier::Schema | Tier::Database => place.schema.as_deref(),
    };
    // As PostgreSQL keeps it: quoted where it must be.
    let name = search_path.unwrap_or("");
    let paths = format!(
        "{}, {}",
        quoted_literal(&format!("search_path={name}")),
        quoted_literal(&format!("search_path={}", quoted_name(name)))
    );
    let reader = place.read_only_login.as_ref();
    let values = [
        ("roles", logins::role_array(place)),
        ("search_path", paths),
        ("token", quoted_literal(&place.token)),
        (
            "reader",
            quoted_literal(reader.map_or("", |login| &login.role)),
        ),
    ];
    let values: Vec<(&str, &str)> = values
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let mut checks = look(session, &fill(ROLES, &values), &ROLE_RULES).await?;
    if place.tier == Tier::Row {
        checks.extend(look(session, ROWS, &ROW_RULES).await?);
    } else {
        checks.extend(ROW_RULES.iter().map(|(name, what)| Check {
            name: (*name).to_owned(),
            what: (*what).to_owned(),
            outcome: Outcome::NotApplicable,
            hole: None,
        }));
    }
    Ok(checks)
}

/// Looks at the rules that hold for the whole cluster.
pub(super) async fn audit_cluster(session: &mut Session) -> Result<Vec<Check>, ProvisioningError> {
    look(session, CLUSTER, &CLUSTER_RULES).await
}

async fn look(
    session: &mut Session,
    query: &str,
    rules: &[(&str, &str)],
) -> Result<Vec<Check>, ProvisioningError> {
    let found: Vec<(String, String)> = session.rows("look at the rules", query).await?;
    let check = |(name, what): &(&str, &str)| {
        let broken: Vec<&str> = found
            .iter()
            .filter(|(rule, _)| rule == name)
            .map(|(_, by)| by.as_str())
            .take(10)
            .collect();
        Check {
            name: (*name).to_owned(),
            what: (*what).to_owned(),
            outcome: if broken.is_empty() {
                Outcome::Closed
            } else {
                Outcome::Open {
                    how: broken.join(", "),
                }
            },
            hole: None,
        }
    };
    Ok(rules.iter().map(check).collect())
}

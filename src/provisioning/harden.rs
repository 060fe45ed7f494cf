//! What tenants may no longer see or do in a database, and what stays open.

use super::{
    Check, Hole, Outcome, Profile, ProvisioningError,
    admin::Session,
    text::{ONE_AT_A_TIME, fill},
};
use crate::tenant::Tier;

const HARDEN: &str = include_str!("sql/harden.sql");
const HOLES: &str = include_str!("sql/holes.sql");
const ROUTINES: &str = include_str!("sql/routines.sql");
const RELATIONS: &str = include_str!("sql/relations.sql");

/// What tenants of a shared database wrote and some profile leaves open.
const LEFT_BY_PROFILES: [&str; 5] = [
    "definitions",
    "row_counts",
    "added_values",
    "object_texts",
    "comments",
];

/// What a database is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `template1` and `postgres`: no tenant's.
    Cluster,
    /// One tenant's own.
    Own,
    /// Tenants of the tier `schema` share it.
    Schemas,
    /// Tenants of the tier `row` share it.
    Rows,
}

impl Kind {
    pub(super) fn of(tier: Tier) -> Self {
        match tier {
            Tier::Database => Self::Own,
            Tier::Schema => Self::Schemas,
            Tier::Row => Self::Rows,
        }
    }

    fn is_shared(self) -> bool {
        matches!(self, Self::Schemas | Self::Rows)
    }
}

/// The subjects that are taken from PUBLIC, as `routines.sql` and `relations.sql` name them.
fn closed(kind: Kind, profile: Profile) -> Vec<&'static str> {
    let mut closed = vec!["activity", "sizes", "shared_comments"];
    if kind.is_shared() {
        closed.extend(["advisory_locks", "signals", "large_objects"]);
    }
    if profile != Profile::Compatible {
        closed.push("role_settings");
        if kind.is_shared() {
            closed.extend(["definitions", "row_counts", "added_values"]);
        }
    }
    if profile == Profile::Sealed && kind.is_shared() {
        closed.extend(["object_texts", "comments"]);
    }
    closed
}

/// The statements that harden the database in which they are run. One transaction.
pub(super) fn statements(kind: Kind, profile: Profile) -> String {
    let closed = array(&closed(kind, profile));
    let values = [
        ("closed", closed.as_str()),
        ("is_shared", if kind.is_shared() { "true" } else { "false" }),
        ("routines", ROUTINES),
        ("relations", RELATIONS),
    ];
    format!("{ONE_AT_A_TIME}{};\n", fill(HARDEN, &values))
}

fn array(subjects: &[&str]) -> String {
    format!("'{{{}}}'::text[]", subjects.join(","))
}

/// What is open in a database.
pub(super) struct Found {
    /// What could not be closed, and what the profile leaves.
    pub(super) holes: Vec<Hole>,
    /// The subjects of what hardening closes and somebody has opened again.
    pub(super) reopened: Vec<String>,
}

impl Found {
    /// That nothing was opened again.
    pub(super) fn check(&self) -> Check {
        let outcome = if self.reopened.is_empty() {
            Outcome::Closed
        } else {
            let subjects = self.reopened.join(", ");
            Outcome::Open {
                how: format!("open again: {subjects}; pgusher cluster harden closes it"),
            }
        };
        Check {
            name: "hardening".to_owned(),
            what: "what hardening has closed is closed".to_owned(),
            outcome,
            hole: None,
        }
    }
}

/// What is open in the database of a session: what could not be closed, and what the profile
/// leaves.
pub(super) async fn holes(
    session: &mut Session,
    kind: Kind,
    profile: Profile,
) -> Result<Vec<Hole>, ProvisioningError> {
    Ok(look(session, kind, profile).await?.holes)
}

/// The same, and what was opened again.
pub(super) async fn look(
    session: &mut Session,
    kind: Kind,
    profile: Profile,
) -> Result<Found, ProvisioningError> {
    let mut closed = closed(kind, profile);
    if kind == Kind::Own {
        // The tenant has them, its read-only role should not.
        closed.push("large_objects");
    }
    let array = array(&closed);
    let values = [
        ("closed", array.as_str()),
        ("is_row", if kind == Kind::Rows { "true" } else { "false" }),
        ("routines", ROUTINES),
        ("relations", RELATIONS),
    ];
    let found: Vec<(String, bool, bool)> = session
        .rows("look for what is open", &fill(HOLES, &values))
        .await?;
    let known = found.iter().filter(|(_, is_known, _)| *is_known);
    let mut holes: Vec<Hole> = known.map(|(subject, ..)| hole(subject)).collect();
    if !closed.contains(&"role_settings") {
        holes.push(hole("role_settings"));
    }
    if kind.is_shared() {
        let left = LEFT_BY_PROFILES.iter();
        let left = left.filter(|subject| !closed.contains(subject));
        holes.extend(left.map(|subject| hole(subject)));
        // Whoever closes these closes the database.
        holes.push(hole("object_names"));
    }
    if kind == Kind::Rows {
        holes.push(hole("view_locks"));
    }
    let reopened = found.into_iter().filter(|(.., is_reopened)| *is_reopened);
    let reopened = reopened.map(|(subject, ..)| subject).collect();
    Ok(Found { holes, reopened })
}

/// A hole by the name of its subject.
#[expect(
    clippy::too_many_lines,
    reason = "a table: a name, what it means, the way out"
)]
pub(super) fn hole(subject: &str) -> Hole {
    let (what, way_out) = match subject {
        "activity" => (
            "other tenants' sessions, locks and statistics can be seen: who is connected, from where, in which state",
            "harden the cluster once with a superuser",
        ),
        "sizes" => (
            "sizes of other tenants' tables and databases and the position of the WAL can be read",
            "harden the cluster once with a superuser",
        ),
        "shared_comments" => (
            "comments on roles and databases can be read",
            "harden the cluster once with a superuser, or write none",
        ),
        "advisory_locks" => (
            "advisory locks share one space of keys: a tenant can hold those that another waits for",
            "harden the cluster once with a superuser, or use a database of its own",
        ),
        "signals" => (
            "a tenant can end or cancel sessions of its own role",
            "harden the cluster once with a superuser",
        ),
        "large_objects" => (
            "large objects can be written, by read-only roles as well, and stay",
            "harden the cluster once with a superuser",
        ),
        "definitions" => (
            "the text of other tenants' functions (with their settings), aggregates, views, rules and triggers can be read",
            "the profile strict, hardened with a superuser, or a database of its own",
        ),
        "row_counts" => (
            "how many rows and pages other tenants' tables have, as of their last ANALYZE, can be read",
            "the profile strict, hardened with a superuser, or a database of its own",
        ),
        "role_settings" => (
            "what other tenants set for their own role (ALTER ROLE CURRENT_USER SET) can be read",
            "the profile strict, hardened with a superuser",
        ),
        "object_names" => (
            "names of other tenants' tables, columns, constraints, functions, arguments and types, labels of their enumerations among them, and what refers to what can be read; whose they are can't",
            "a database of its own",
        ),
        "object_texts" => (
            "what stands in other tenants' column defaults, checks, index expressions and predicates, policies, partition bounds, domains, extended statistics and default arguments, and the numbers of their sequences' definitions can be read",
            "the profile sealed, hardened with a superuser, or a database of its own",
        ),
        "comments" => (
            "other tenants' comments on their objects can be read",
            "the profile sealed, hardened with a superuser, or a database of its own",
        ),
        "added_values" => (
            "what columns that other tenants added later have in the rows that were there before can be read",
            "the profile strict, hardened with a superuser, or a database of its own",
        ),
        // Who may delete through a view may lock it; that fails at the table below, but only when it
        // has got the lock on the view.
        "view_locks" => (
            "no privilege keeps a tenant from holding up the others: LOCK TABLE on a shared view waits behind a transaction of its own, and all others' statements wait behind that",
            "a running proxy ends such a session within a moment (lock_watch_interval of [registry])",
        ),
        "public_schema" => (
            "the schema public can be used by everybody",
            "REVOKE ALL ON SCHEMA public FROM PUBLIC, as its owner",
        ),
        "database_access" => (
            "a tenant can connect to other databases of the cluster that let everybody in, postgres and template1 among them",
            "REVOKE ALL ON DATABASE … FROM PUBLIC, as their owner",
        ),
        "prepared_transactions" => (
            "a tenant can leave prepared transactions, which hold locks and keep vacuum from cleaning up",
            "max_prepared_transactions = 0",
        ),
        "temporary_files" => (
            "nothing limits the disk space of a tenant's temporary files",
            "GRANT SET ON PARAMETER temp_file_limit to the admin, as a superuser",
        ),
        "slots" => (
            "row tenants of the variant shared can't be bound to slots",
            "GRANT SET ON PARAMETER backtrace_functions TO pgusher_ctl, as a superuser",
        ),
        _ => ("not known", "not known"),
    };
    Hole {
        name: subject.to_owned(),
        what: what.to_owned(),
        way_out: way_out.to_owned(),
    }
}

//! Verification tells what is open, and tells nothing where nothing is.

use super::places::{TIERS, both, hardened, place, superuser, turn, writer};
use pgusher::{
    provisioning::{
        Admin, Check, Outcome, Place, Profile, harden_cluster, make, prepare_database, repair,
        unmake, verify, verify_cluster,
    },
    tenant::Tier,
};
use std::collections::BTreeSet;

async fn made(admin: &Admin, tier: Tier) -> Place {
    harden_cluster(admin, Profile::Strict).await.unwrap();
    let place = place(tier);
    make(admin, Profile::Strict, &place).await.unwrap();
    place
}

fn named<'a>(checks: impl IntoIterator<Item = &'a Check>) -> BTreeSet<String> {
    checks.into_iter().map(|check| check.name.clone()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// What is open that no hole tells.
async fn leaks(admin: &Admin, place: &Place) -> BTreeSet<String> {
    let report = verify(admin, Profile::Strict, place).await.unwrap();
    named(report.open())
}

#[tokio::test]
async fn nothing_is_open_in_a_place_as_it_is_made() {
    let _turn = turn().await;
    for (_, admin) in both() {
        for tier in TIERS {
            let place = made(&admin, tier).await;
            let report = verify(&admin, Profile::Strict, &place).await.unwrap();
            let open: Vec<_> = report.open().map(ToString::to_string).collect();
            assert!(report.holds(), "{tier} by {}: {open:?}", admin.role);
            let closed = report
                .checks
                .iter()
                .filter(|check| check.outcome == Outcome::Closed);
            assert!(closed.count() > 30, "{tier}");
            unmake(&admin, &place).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_an_admin_without_superuser_cannot_close_is_told() {
    let _turn = turn().await;
    let [(_, superuser), (_, operator)] = both();
    let mut told = Vec::new();
    for admin in [superuser, operator] {
        let place = made(&admin, Tier::Schema).await;
        let holes = make(&admin, Profile::Strict, &place).await.unwrap();
        told.push(
            holes
                .into_iter()
                .map(|hole| hole.name)
                .collect::<BTreeSet<_>>(),
        );
        unmake(&admin, &place).await.unwrap();
    }
    // The tests' server lets prepared transactions be, and has a database for everybody.
    let always = [
        "comments",
        "database_access",
        "object_names",
        "object_texts",
        "prepared_transactions",
    ];
    assert_eq!(told[0], set(&always));
    let more = [
        "activity",
        "added_values",
        "advisory_locks",
        "definitions",
        "large_objects",
        "role_settings",
        "row_counts",
        "shared_comments",
        "signals",
        "sizes",
        "temporary_files",
    ];
    assert_eq!(told[1], set(&[&always[..], &more].concat()));
}

#[tokio::test]
async fn every_attack_succeeds_as_a_superuser_or_is_proven_otherwise() {
    let _turn = turn().await;
    let (postgres, admin) = (hardened(), superuser(hardened()));
    for tier in TIERS {
        let place = made(&admin, tier).await;
        if tier != Tier::Row {
            let table = "create table mine (i int); insert into mine values (1)";
            writer(postgres, &place).exec(table);
        }
        let mut server = postgres.admin();
        for prefix in ["t", "r"] {
            server.exec(&format!("alter role {prefix}_{} superuser", place.token));
        }
        let report = verify(&admin, Profile::Strict, &place).await.unwrap();
        let closed = report
            .checks
            .iter()
            .filter(|check| check.outcome == Outcome::Closed);
        let mut expected = set(&[
            // Rules, which are about something else.
            "hardening",
            "settings",
            "members",
            "group",
            "code",
            "definers",
            // That the tenant can work.
            "works",
            // Below: `sabotages`.
            "temporary_files",
        ]);
        if tier != Tier::Row {
            expected.extend(set(&["reader_functions"]));
        }
        if tier == Tier::Row {
            expected.extend(set(&[
                "row_security",
                "policies",
                "grants",
                "indexes",
                "foreign_keys",
                "sequences",
                "planner_statistics",
                "views",
                "tenant",
                // The view's owner reads, and who reads is told by its name: no attribute helps.
                "read_rows",
                "change_rows",
                "add_rows",
                "remove_rows",
                "forge_tenant",
                "reader_rows",
                "reader_update",
                "lock_table",
                "share_lock",
                "statistics",
            ]));
        }
        assert_eq!(named(closed), expected, "{tier}");
        unmake(&admin, &place).await.unwrap();
    }
}

/// One thing that is wrong, and what tells it.
struct Sabotage {
    tier: Tier,
    sql: &'static str,
    told_by: &'static [&'static str],
    undone_by: &'static str,
}

const fn sabotage(
    tier: Tier,
    sql: &'static str,
    told_by: &'static [&'static str],
    undone_by: &'static str,
) -> Sabotage {
    Sabotage {
        tier,
        sql,
        told_by,
        undone_by,
    }
}

/// `{t}` and `{r}` are the tenant's roles. What is not undone here, is by `prepare_database` and
/// `repair`.
const SABOTAGES: &[Sabotage] = &[
    // The naive ways to keep rows apart.
    sabotage(
        Tier::Row,
        "alter table data.canary disable row level security",
        &["read_rows", "change_rows", "add_rows", "row_security"],
        "",
    ),
    sabotage(
        Tier::Row,
        "alter table data.canary no force row level security",
        &["row_security"],
        "",
    ),
    sabotage(
        Tier::Row,
        "create or replace function ctl.tenant() returns text language sql stable return coalesce(nullif(current_setting('pgusher.tenant', true), ''), substr(session_user::text, 3))",
        &["forge_tenant"],
        "",
    ),
    sabotage(
        Tier::Row,
        "drop policy tenant on data.canary; create policy tenant on data.canary using (true)",
        &["read_rows", "change_rows", "add_rows", "policies"],
        "",
    ),
    sabotage(
        Tier::Row,
        "create policy second on data.canary to {t} using (tenant_id = (select ctl.tenant()))",
        &["policies"],
        "drop policy second on data.canary",
    ),
    sabotage(
        Tier::Row,
        "alter table data.canary set (autovacuum_enabled = off); grant update, delete on data.canary to pgusher_view; grant delete on ctl.canary to public",
        &["lock_table", "share_lock", "grants"],
        "revoke update, delete on data.canary from pgusher_view; revoke delete on ctl.canary from public",
    ),
    sabotage(
        Tier::Row,
        "grant usage on schema data to public; grant select, truncate on data.canary to public",
        &["truncate", "usable_schemas", "grants"],
        "revoke usage on schema data from public; revoke select, truncate on data.canary from public",
    ),
    sabotage(
        Tier::Row,
        "drop policy read_only on data.canary",
        &["policies"],
        "",
    ),
    sabotage(
        Tier::Row,
        "drop trigger refuse_read_only on data.canary",
        &["reader_rows", "reader_update"],
        "",
    ),
    sabotage(
        Tier::Row,
        "create index bad on data.canary (secret)",
        &["indexes"],
        "drop index data.bad",
    ),
    sabotage(
        Tier::Row,
        "alter table data.canary disable row level security, alter secret set statistics 100; insert into data.canary select 'canary', n, 'same' from generate_series(10, 99) as n; analyze data.canary; grant usage on schema data to public; grant select on data.canary to public",
        &["planner_statistics", "statistics"],
        "delete from data.canary where id >= 10; revoke usage on schema data from public; revoke select on data.canary from public",
    ),
    sabotage(
        Tier::Row,
        "create table data.bad (id int generated always as identity primary key)",
        &["row_security", "indexes", "sequences", "planner_statistics"],
        "drop table data.bad",
    ),
    sabotage(
        Tier::Row,
        "create table data.parent (id int primary key); create table data.bad (tenant_id text, id int references data.parent)",
        &["foreign_keys"],
        "drop table data.bad, data.parent",
    ),
    sabotage(
        Tier::Row,
        "create view app.bad as select * from data.canary; grant select on app.bad to public",
        &["views"],
        "drop view app.bad",
    ),
    sabotage(
        Tier::Row,
        "grant temp on database \"the rows\" to {t}",
        &["temporary_tables"],
        "revoke temp on database \"the rows\" from {t}",
    ),
    sabotage(
        Tier::Row,
        "alter function ctl.tenant() owner to admin",
        &["tenant"],
        "",
    ),
    sabotage(
        Tier::Row,
        "grant set on parameter backtrace_functions to {t}",
        &["forge_slot"],
        "revoke set on parameter backtrace_functions from {t}",
    ),
    // Schemas.
    sabotage(
        Tier::Schema,
        "create function {t}.writes() returns void language sql security definer as 'select'; alter function {t}.writes() owner to {t}; grant execute on function {t}.writes() to {r}",
        &["reader_functions"],
        "drop function {t}.writes()",
    ),
    sabotage(
        Tier::Schema,
        "create table {t}.open (i int); grant insert on {t}.open to {r}",
        &["reader_privileges"],
        "drop table {t}.open",
    ),
    sabotage(
        Tier::Schema,
        "grant create on schema {t} to {r}",
        &["reader_tables"],
        "revoke create on schema {t} from {r}",
    ),
    sabotage(
        Tier::Schema,
        "create schema open; grant usage, create on schema open to public",
        &["usable_schemas", "writable_schemas"],
        "drop schema open",
    ),
    sabotage(
        Tier::Schema,
        "create function public.unpinned() returns void language sql security definer as 'select'; grant execute on function public.unpinned() to public",
        &["definers"],
        "drop function public.unpinned()",
    ),
    // Roles.
    sabotage(
        Tier::Schema,
        "alter role {t} inherit",
        &["attributes"],
        "alter role {t} noinherit",
    ),
    sabotage(
        Tier::Schema,
        "grant pg_read_all_data to {t}",
        &["memberships", "members"],
        "revoke pg_read_all_data from {t}",
    ),
    sabotage(
        Tier::Schema,
        "alter role {t} reset temp_file_limit",
        &["temporary_files"],
        "",
    ),
    sabotage(
        Tier::Schema,
        "alter role {t} set statement_timeout = 1000",
        &["settings"],
        "",
    ),
    sabotage(
        Tier::Schema,
        "alter role {r} reset default_transaction_read_only",
        &["settings"],
        "",
    ),
    sabotage(
        Tier::Schema,
        "grant create on schema public to pgusher_tenants",
        &["group"],
        "revoke create on schema public from pgusher_tenants",
    ),
    // What hardening closes.
    sabotage(
        Tier::Schema,
        "grant execute on function pg_try_advisory_xact_lock(bigint) to {t}",
        &["advisory_locks"],
        "revoke execute on function pg_try_advisory_xact_lock(bigint) from {t}",
    ),
    sabotage(
        Tier::Schema,
        "grant execute on function lo_create(oid) to {t}, {r}",
        &["large_objects", "reader_objects"],
        "revoke execute on function lo_create(oid) from {t}, {r}",
    ),
    sabotage(
        Tier::Database,
        "grant execute on function pg_stat_get_activity(int) to {t}",
        &["activity"],
        "revoke execute on function pg_stat_get_activity(int) from {t}",
    ),
    sabotage(
        Tier::Database,
        "grant connect on database \"the schemas\" to {t}",
        &["databases"],
        "revoke connect on database \"the schemas\" from {t}",
    ),
];

#[tokio::test]
async fn what_is_wrong_is_told_by_its_check() {
    let _turn = turn().await;
    let (postgres, admin) = (hardened(), superuser(hardened()));
    let fill = |sql: &str, place: &Place| {
        sql.replace("{t}", &format!("t_{}", place.token))
            .replace("{r}", &format!("r_{}", place.token))
    };
    // The other tiers first: the database tier is told to be open towards theirs.
    for tier in TIERS.into_iter().rev() {
        let place = made(&admin, tier).await;
        let mut server = postgres.endpoint().admin_of(&place.database);
        for one in SABOTAGES.iter().filter(|one| one.tier == tier) {
            server.exec(&fill(one.sql, &place));
            let told = leaks(&admin, &place).await;
            for name in one.told_by {
                assert!(told.contains(*name), "{name} by {}: {told:?}", one.sql);
            }
            if !one.undone_by.is_empty() {
                server.exec(&fill(one.undone_by, &place));
            }
            if tier != Tier::Database {
                prepare_database(&admin, Profile::Strict, &place.database, tier)
                    .await
                    .unwrap();
            }
            repair(&admin, Profile::Strict, &place).await.unwrap();
        }
        assert_eq!(leaks(&admin, &place).await, set(&[]), "{tier}, repaired");
        drop(server);
        unmake(&admin, &place).await.unwrap();
    }
}

#[tokio::test]
async fn a_database_as_postgresql_makes_it_is_told_to_be_open() {
    let _turn = turn().await;
    let (postgres, admin) = (hardened(), superuser(hardened()));
    let place = made(&admin, Tier::Database).await;
    // As if it had been made without hardening.
    let mut server = postgres.admin();
    server.exec(&format!("drop database {}", place.database));
    server.exec(&format!(
        "create database {} template template0",
        place.database
    ));
    let mut inside = postgres.endpoint().admin_of(&place.database);
    inside.exec(&format!(
        "create schema app authorization t_{0}; grant usage on schema app to r_{0}",
        place.token
    ));
    drop(inside);
    let report = verify(&admin, Profile::Strict, &place).await.unwrap();
    let open = report
        .checks
        .iter()
        .filter(|check| matches!(check.outcome, Outcome::Open { .. }));
    let open = named(open);
    for name in [
        "activity",
        "locks",
        "sizes",
        "wal",
        "settings_of_others",
        "role_list_settings",
        "prepared",
        "reader_temporary",
        "reader_objects",
        "public_databases",
    ] {
        assert!(open.contains(name), "{name}: {open:?}");
    }
    unmake(&admin, &place).await.unwrap();
}

#[tokio::test]
async fn a_cluster_is_verified_in_every_database_that_is_shared() {
    let _turn = turn().await;
    for (postgres, admin) in both() {
        let places = [
            made(&admin, Tier::Schema).await,
            made(&admin, Tier::Row).await,
        ];
        let roles = "select count(*) from pg_roles";
        let before = postgres.admin().value(roles);
        let report = verify_cluster(&admin, Profile::Strict).await.unwrap();
        let open: Vec<_> = report.open().map(ToString::to_string).collect();
        assert!(report.holds(), "{}: {open:?}", admin.role);
        for name in [
            "group",
            "database.login_victim",
            "schema.read_rows",
            "row.lock_table",
        ] {
            let closed = report
                .checks
                .iter()
                .any(|check| check.name == name && check.outcome == Outcome::Closed);
            assert!(closed, "{name}");
        }
        assert_eq!(postgres.admin().value(roles), before);

        postgres
            .admin()
            .exec(&format!("alter role r_{} createdb", places[0].token));
        postgres
            .admin()
            .exec(&format!("grant pgusher_ctl to t_{}", places[0].token));
        let report = verify_cluster(&admin, Profile::Strict).await.unwrap();
        assert_eq!(
            named(report.open()),
            set(&["attributes", "members", "owners"])
        );
        for place in &places {
            unmake(&admin, place).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_a_killed_verification_left_is_removed_by_a_later_one() {
    let _turn = turn().await;
    let (postgres, admin) = (hardened(), superuser(hardened()));
    for tier in TIERS {
        let [place, left] = [made(&admin, tier).await, made(&admin, tier).await];
        let mut server = postgres.admin();
        let note = |role: &str, age: u32| {
            format!(
                "do $$ begin execute format('comment on role {role} is %L',
                 'pgusher canary ' || extract(epoch from now())::bigint - {age} || ' {tier} {}'); end $$",
                left.database
            )
        };
        let there = format!(
            "select count(*) from pg_roles where rolname ~ '{}'",
            left.token
        );
        for (age, expected) in [(60, "2"), (3600, "0")] {
            server.exec(&note(&format!("t_{}", left.token), age));
            verify(&admin, Profile::Strict, &place).await.unwrap();
            assert_eq!(server.value(&there), expected, "{tier} after {age} s");
        }
        unmake(&admin, &place).await.unwrap();
    }
}

//! Verification attacks a tenant of the variant `shared` for real, and tells what is open.

use super::{Rows, Stage, ids, token};
use crate::{
    harness::{Postgres, office::Office},
    places::superuser,
};
use pgusher::{
    provisioning::{
        Admin, Check, Outcome, Place, Profile, ProvisioningError, Report, Variant, harden_cluster,
        make, make_slots, new_token, prepare_database, try_in_slots, verify_in_slots,
    },
    tenant::{SlotKey, Tier},
};
use std::collections::BTreeSet;

const DATABASE: &str = super::stage::DATABASE;

struct Ground {
    rows: Rows,
    admin: Admin,
    place: Place,
}

impl Ground {
    async fn new() -> Self {
        let postgres = Postgres::start();
        let admin = superuser(&postgres);
        let rows = Rows::around(postgres, SlotKey::random(Some(4)));
        let ground = Self {
            rows,
            admin,
            place: Place {
                tier: Tier::Row,
                variant: Variant::Shared,
                database: DATABASE.into(),
                schema: None,
                token: new_token().unwrap(),
                login: None,
                read_only_login: None,
                connection_limit: -1,
            },
        };
        harden_cluster(&ground.admin, Profile::Strict)
            .await
            .unwrap();
        ground.repair().await;
        ground
    }

    /// Makes everything as it should be.
    async fn repair(&self) {
        let Self { rows, admin, place } = self;
        prepare_database(admin, Profile::Strict, DATABASE, Tier::Row)
            .await
            .unwrap();
        make(admin, Profile::Strict, place).await.unwrap();
        // A key that is not known: all is made again.
        if rows
            .admin()
            .value("select to_regclass('ctl.hmac_key') is not null")
            == "t"
        {
            rows.admin().exec("delete from ctl.hmac_key");
        }
        make_slots(admin, DATABASE, (1, &rows.key)).await.unwrap();
    }

    async fn verify(&self) -> Report {
        verify_in_slots(&self.admin, Profile::Strict, &self.place, &self.rows.key)
            .await
            .unwrap()
    }
}

fn open(report: &Report) -> BTreeSet<String> {
    report.open().map(|check| check.name.clone()).collect()
}

fn closed(report: &Report) -> usize {
    let is_closed = |check: &&Check| check.outcome == Outcome::Closed;
    report.checks.iter().filter(is_closed).count()
}

#[tokio::test]
async fn a_tenant_of_slots_is_attacked_beside_a_proxy_that_runs() {
    let ground = Ground::new().await;
    let ids = ids(2);
    let stage = Stage::on(&ground.rows, &ids, 2, |_| ());
    let mut clients: Vec<_> = ids.iter().map(|id| stage.client(id)).collect();
    for (id, client) in ids.iter().zip(&mut clients) {
        client.exec("begin");
        client.exec("insert into ctl.canary (id, secret) values (1, 'kept')");
        assert_eq!(client.value("select ctl.tenant()"), token(id));
    }
    let before = ground.rows.slots();
    let report = ground.verify().await;
    assert!(report.holds(), "{:?}", open(&report));
    assert!(closed(&report) > 80, "{}", closed(&report));
    for name in [
        "read_rows",
        "change_rows",
        "lock_table",
        "forge_slot",
        "slot_forged",
        "slot_replayed",
        "slot_rebound",
        "slot_reset_all",
        "slot_leavings",
        "slot_serves",
        "slot_unbound",
        "works",
        "unharmed",
        "queries",
        "locks",
        "reader_rows",
    ] {
        let check = report.checks.iter().find(|check| check.name == name);
        assert_eq!(check.unwrap().outcome, Outcome::Closed, "{name}");
    }
    // The tests' server lets prepared transactions be, and that is told.
    let prepares = report.checks.iter().find(|one| one.name == "slot_prepares");
    assert_eq!(
        prepares.unwrap().hole.as_deref(),
        Some("prepared_transactions")
    );
    assert_eq!(ground.rows.slots(), before, "the proxy's are still there");
    for (id, client) in ids.iter().zip(&mut clients) {
        client.exec("commit");
        assert_eq!(client.values("select secret from ctl.canary"), ["kept"]);
        assert_eq!(client.value("select ctl.tenant()"), token(id));
    }
    let rows = "select count(*) from data.canary where tenant_id not in ";
    let known = format!("('canary', '{}', '{}')", token(&ids[0]), token(&ids[1]));
    assert_eq!(ground.rows.admin().value(&format!("{rows}{known}")), "0");
}

/// A way to open something, and the checks that tell.
const SABOTAGES: &[(&str, &[&str], &str)] = &[
    (
        "grant set on parameter backtrace_functions to public",
        &[
            "slot_set",
            "slot_set_local",
            "slot_set_hidden",
            "forge_slot",
            "slot_reset",
            "slot_role_setting",
        ],
        "revoke set on parameter backtrace_functions from public",
    ),
    (
        "grant select on ctl.hmac_key, ctl.slot to public",
        &["slot_keys", "slot_leases"],
        "revoke select on ctl.hmac_key, ctl.slot from public",
    ),
    (
        "grant execute on function ctl.lease(text, text), ctl.make_slot(text) to public",
        &["slot_lease", "slot_make"],
        "",
    ),
    (
        "create or replace function ctl.bind(tenant text, expiry bigint, mac bytea) returns void language plpgsql \
         security definer set search_path = pg_catalog, pg_temp as $$ begin perform set_config('backtrace_functions', tenant, false); end $$",
        &[
            "slot_forged",
            "slot_replayed",
            "slot_replayed_as_nobody",
            "slot_retold",
            "slot_rebound",
        ],
        "",
    ),
    (
        "create or replace function ctl.unbound() returns text language sql stable parallel safe as $$ select 'canary'::text $$",
        &["slot_reset_all", "slot_write_as_nobody", "slot_unbound"],
        "",
    ),
    (
        "drop event trigger pgusher_refuse_commands",
        &["slot_leaves", "slot_drops"],
        "",
    ),
    (
        "drop policy tenant on data.canary; create policy tenant on data.canary using (true) with check (true)",
        &[
            "read_rows",
            "change_rows",
            "add_rows",
            "policies",
            "slot_serves",
        ],
        "",
    ),
    (
        "grant execute on function pg_stat_get_activity(int) to public",
        &["hardening", "activity"],
        "revoke execute on function pg_stat_get_activity(int) from public",
    ),
    (
        "alter table data.canary set (autovacuum_enabled = off); grant update on data.canary to pgusher_view",
        &["lock_table", "share_lock", "grants"],
        "revoke update on data.canary from pgusher_view",
    ),
];

#[tokio::test]
async fn what_is_wrong_with_slots_is_told_by_its_check() {
    let ground = Ground::new().await;
    let mut admin = ground.rows.admin();
    for (sql, told_by, undone_by) in SABOTAGES {
        admin.exec(sql);
        let told = open(&ground.verify().await);
        for name in *told_by {
            assert!(told.contains(*name), "{name} by {sql}: {told:?}");
        }
        if !undone_by.is_empty() {
            admin.exec(undone_by);
        }
        ground.repair().await;
    }
    assert_eq!(open(&ground.verify().await), BTreeSet::new());
}

#[tokio::test]
async fn a_tenant_is_not_made_where_a_slot_can_be_forged() {
    let ground = Ground::new().await;
    let Ground { rows, admin, place } = &ground;
    try_in_slots(admin, place, &rows.key, &[]).await.unwrap();
    rows.admin()
        .exec("grant set on parameter backtrace_functions to public");
    let error = try_in_slots(admin, place, &rows.key, &[])
        .await
        .unwrap_err();
    let ProvisioningError::Leaks(leaks) = error else {
        panic!("{error}");
    };
    assert!(
        leaks.iter().any(|leak| leak.name == "slot_set"),
        "{leaks:?}"
    );
}

#[test]
fn the_command_attacks_a_tenant_of_slots() {
    let postgres = Postgres::start();
    let office = Office::new(postgres.endpoint());
    office.add_cluster("main", postgres.endpoint(), &[]);
    let create = [
        "tenant",
        "create",
        "acme",
        "--tier",
        "row",
        "--variant",
        "shared",
    ];
    for id in ["acme", "brill"] {
        office.json(&create.map(|word| if word == "acme" { id } else { word }));
    }
    let report = office.json(&["tenant", "verify", "acme"]);
    let checks = report["checks"].as_array().unwrap();
    let of = |name: &str| {
        let found = checks.iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("{name} in {report}"))["outcome"].clone()
    };
    for name in [
        "read_rows",
        "slot_replayed",
        "slot_leavings",
        "unharmed",
        "policies",
    ] {
        assert_eq!(of(name), "closed", "{name}");
    }
    let mut server = postgres.endpoint().admin_of("pgusher_rows");
    server.exec("grant select on ctl.hmac_key to public");
    let run = office.run(&["tenant", "verify", "acme"]);
    assert!(!run.is_success, "{}", run.out);
    assert!(run.out.contains("slot_keys"), "{}{}", run.out, run.err);
}

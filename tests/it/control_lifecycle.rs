//! A tenant's life: suspended, resumed, ended, its password changed; and what its events tell of it.

use crate::harness::{
    Client, Connect, Postgres, Proxy, Request, Tenant,
    estate::{Estate, ground, traces},
    eventually,
};
use pgusher::{
    control::{ControlError, Page, key_record, tenant_record},
    crypto::{Purpose, Sealed},
    registry,
};
use serde_json::{Map, Value, json};

fn password(estate: &Estate, id: &str, what: &str) -> String {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (control, _) = estate.control().await;
        let mut db = control.registry.pool.acquire().await.unwrap();
        let row = registry::tenant(&mut db, id).await.unwrap().unwrap();
        let sealed = match what {
            "password" => row.password,
            _ => row.read_only_password,
        };
        let owner = format!("tenant:{id}");
        let purpose = Purpose {
            owner: &owner,
            what,
        };
        let opened = control
            .registry
            .keyring
            .open(purpose, Sealed(&sealed.unwrap()));
        String::from_utf8(opened.unwrap().to_vec()).unwrap()
    })
}

/// As the proxy logs in for the tenant.
fn upstream(estate: &Estate, id: &str, password: &str) -> Connect {
    Connect::to(ground().endpoint().address())
        .user(&estate.field(id, "role"))
        .database(&estate.field(id, "database_name"))
        .password(password)
}

fn run(estate: &Estate, arguments: &[&str]) {
    estate.office.run(arguments).succeeded();
}

fn can_login(admin: &mut Client, role: &str) -> String {
    admin.value(&format!(
        "select rolcanlogin from pg_roles where rolname = '{role}'"
    ))
}

#[test]
fn a_suspended_tenant_is_locked_out_of_its_cluster_and_let_in_again() {
    let estate = Estate::new();
    for tier in ["database", "schema", "row"] {
        estate.create(tier, tier);
        let secret = password(&estate, tier, "password");
        let mut session = upstream(&estate, tier, &secret).login();
        let suspend = ["tenant", "suspend", tier, "--reason", "unpaid"];
        run(&estate, &suspend);
        assert_eq!(estate.field(tier, "status"), "suspended");
        session.ends_with("57P01");
        assert!(upstream(&estate, tier, &secret).try_login().is_err());
        run(&estate, &suspend);
        let suspended = estate.events(tier);
        assert_eq!(
            suspended.iter().filter(|kind| *kind == "Suspended").count(),
            1
        );
        run(&estate, &["tenant", "resume", tier]);
        assert_eq!(estate.field(tier, "status"), "active");
        assert_eq!(
            upstream(&estate, tier, &secret).login().value("select 1"),
            "1"
        );
        assert_eq!(estate.events(tier).last().unwrap(), "Reactivated");
        let history = estate.office.json(&["tenant", "history", tier]);
        let events = history.as_array().unwrap();
        let told = events
            .iter()
            .find(|event| event["kind"] == "Suspended")
            .unwrap();
        assert_eq!(told["facts"]["reason"], "unpaid");
        assert_eq!(
            told["changes"]["status"],
            json!({"before": "active", "after": "suspended"})
        );
    }
}

#[test]
fn a_suspension_holds_when_the_cluster_does_not_answer() {
    let estate = Estate::new();
    estate.create("acme", "row");
    let mut registry = estate.registry();
    registry.exec("update pgusher.cluster set primary_url = 'postgres://127.0.0.1:1'");
    let told = estate.fails(&["tenant", "suspend", "acme"]);
    assert!(
        told.contains("is suspended, but cluster \"main\" could not be told"),
        "{told}"
    );
    assert_eq!(estate.field("acme", "status"), "suspended");
}

#[test]
fn with_another_master_key_who_is_ended_is_refused_all_the_same_and_told() {
    let estate = Estate::new();
    estate.create("acme", "row");
    let key = estate.office.path().join("master.key");
    let right = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    // Of the same number.
    estate.office.add_master_key(1);
    let told = estate.fails(&["tenant", "suspend", "acme"]);
    let says = "is suspended, but cluster \"main\" could not be told";
    assert!(told.contains(says), "{told}");
    assert!(told.contains("does not open with master key 1"), "{told}");
    assert_eq!(estate.field("acme", "status"), "suspended");
    let told = estate.fails(&["tenant", "delete", "acme"]);
    assert!(told.contains("\"acme\" is terminated"), "{told}");
    assert_eq!(estate.field("acme", "status"), "terminated");
    let told = estate.fails(&["secrets", "rotate"]);
    assert!(told.contains("are not the registry's"), "{told}");
    std::fs::write(&key, right).unwrap();
    run(&estate, &["tenant", "resume", "acme"]);
    run(&estate, &["tenant", "suspend", "acme"]);
    run(&estate, &["secrets", "rotate"]);
}

#[test]
fn a_new_password_replaces_the_old_one_and_sessions_go_on() {
    let estate = Estate::new();
    estate.create("acme", "schema");
    let whats = ["password", "read_only_password"];
    let old = whats.map(|what| password(&estate, "acme", what));
    let mut session = upstream(&estate, "acme", &old[0]).login();
    let printed = estate
        .office
        .run(&["tenant", "rotate-password", "acme", "--json"])
        .succeeded();
    let new = whats.map(|what| password(&estate, "acme", what));
    assert!(old.iter().all(|old| !new.contains(old)));
    assert!(
        new.iter()
            .all(|new| !printed.out.contains(new) && !printed.err.contains(new))
    );
    assert_eq!(session.value("select 1"), "1");
    assert!(upstream(&estate, "acme", &old[0]).try_login().is_err());
    assert_eq!(
        upstream(&estate, "acme", &new[0]).login().value("select 1"),
        "1"
    );
    let reader = upstream(&estate, "acme", &new[1]).user(&estate.field("acme", "read_only_role"));
    assert_eq!(reader.login().value("select 1"), "1");
    assert_eq!(estate.events("acme").last().unwrap(), "PasswordRotated");
}

#[test]
fn a_change_of_password_that_is_killed_half_way_is_put_right_by_a_sweep() {
    let estate = Estate::new();
    let own = Postgres::start();
    let url = own.endpoint().url();
    run(
        &estate,
        &[
            "cluster",
            "add",
            "own",
            "--primary",
            &url,
            "--admin-role",
            "admin",
        ],
    );
    run(
        &estate,
        &[
            "tenant",
            "create",
            "acme",
            "--tier",
            "database",
            "--cluster",
            "own",
        ],
    );
    let role = estate.field("acme", "role");
    let kept = password(&estate, "acme", "password");
    let mut admin = own.admin();
    let verifier = format!("select rolpassword from pg_authid where rolname = '{role}'");
    let before = admin.value(&verifier);

    // It is held up in the cluster; then, when it has changed the password there, in the registry.
    let mut holder = own.admin();
    holder.exec("begin; lock table pg_authid in share row exclusive mode");
    let mut child = estate.start(&["tenant", "rotate-password", "acme"]);
    eventually("it waits in the cluster", || {
        admin.value("select count(*) from pg_stat_activity where wait_event_type = 'Lock'") == "1"
    });
    let mut registry = estate.registry();
    registry.exec("begin; select pg_advisory_xact_lock(7202411)");
    holder.exec("rollback");
    eventually("the cluster has the new password", || {
        admin.value(&verifier) != before
    });
    child.kill().unwrap();
    child.wait().unwrap();
    registry.exec("rollback");

    assert_eq!(password(&estate, "acme", "password"), kept);
    let connect = Connect::to(own.endpoint().address())
        .user(&role)
        .database(&estate.field("acme", "database_name"))
        .password(&kept);
    assert!(connect.try_login().is_err());
    eventually("the sweep has put it right", || {
        estate.office.json(&["tenant", "sweep"])["repaired"] == json!(["acme"])
    });
    assert_eq!(connect.login().value("select 1"), "1");
    assert_eq!(
        estate.office.json(&["tenant", "sweep"])["repaired"],
        json!([])
    );
}

#[test]
fn a_client_waits_for_a_password_that_is_just_being_changed() {
    let place = Postgres::shared().place();
    let mut proxy = Proxy::of([Tenant::new("acme", &place)]).start();
    let mut busy = proxy.connect("acme").login();
    let mut waiting = proxy.connect("acme").login();
    busy.exec("begin");
    let role = place.role();
    place
        .admin()
        .exec(&format!("alter role {role} password 'the new one'"));
    waiting.send(&Request::new().query("select 41 + 1"));
    eventually("PostgreSQL has refused the old password", || {
        proxy.log().contains("server connection failed")
    });
    proxy.reload(|file| file.set_tenant("acme", "password", "the new one"));
    let answer = waiting.until_ready();
    assert!(answer.iter().any(|frame| frame.tag == b'D'), "{answer:?}");
    busy.exec("commit");
    busy.is_in_step();
}

#[test]
fn a_deleted_tenant_is_refused_at_once_and_gone_after_its_grace() {
    let estate = Estate::new();
    for tier in ["database", "schema", "row"] {
        estate.create(tier, tier);
        let token = estate.field(tier, "token");
        let role = estate.field(tier, "role");
        run(&estate, &["tenant", "delete", tier]);
        assert_eq!(estate.field(tier, "status"), "terminated");
        assert_eq!(can_login(&mut ground().admin(), &role), "f");
        assert_eq!(
            estate.office.json(&["tenant", "sweep"])["removed"],
            json!([])
        );

        run(&estate, &["tenant", "resume", tier]);
        assert_eq!(estate.field(tier, "status"), "active");
        assert_eq!(estate.field(tier, "remove_at"), "");
        assert_eq!(can_login(&mut ground().admin(), &role), "t");

        run(&estate, &["tenant", "delete", tier]);
        let due = "update pgusher.tenant set remove_at = now() - interval '1 second'";
        estate.registry().exec(due);
        assert_eq!(
            estate.office.json(&["tenant", "sweep"])["removed"],
            json!([tier])
        );
        assert_eq!(traces(&token), "0", "{tier}");
        assert_eq!(estate.field(tier, "id"), "");
        assert_eq!(estate.events(tier).last().unwrap(), "Removed");
    }
    let keys = estate
        .registry()
        .value("select count(*) from pgusher.api_key");
    assert_eq!(keys, "0");
}

#[test]
fn what_a_tenant_had_is_dumped_before_it_goes() {
    let estate = Estate::new();
    for tier in ["database", "schema"] {
        estate.create(tier, tier);
        let mut session = upstream(&estate, tier, &password(&estate, tier, "password")).login();
        session.exec("create table notes (text text)");
        session.exec("insert into notes values ('remember the milk')");
        let file = format!("{tier}.dump");
        run(
            &estate,
            &["tenant", "delete", tier, "--grace", "0s", "--dump", &file],
        );
        let path = estate.office.path().join(&file);
        let bin = crate::harness::postgres::bin();
        let mut restore = std::process::Command::new(bin.join("pg_restore"));
        let restored = restore
            .args(["--data-only", "-f", "-"])
            .arg(&path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&restored.stdout).into_owned();
        assert!(text.contains("remember the milk"), "{text}");
        assert_eq!(estate.field(tier, "id"), "");
    }
    estate.create("kept", "database");
    let told = estate.fails(&["tenant", "delete", "kept", "--dump", "/nowhere/x.dump"]);
    assert!(told.contains("is in no folder"), "{told}");
    assert_eq!(estate.field("kept", "status"), "active");
}

#[test]
fn a_row_tenants_dump_has_its_own_rows_alone() {
    let estate = Estate::new();
    estate.create("acme", "row");
    estate.create("other", "row");
    let mut admin = ground().endpoint().admin_of("pgusher_rows");
    admin.exec("create table if not exists data.dumped (tenant_id text, text text)");
    for (id, text) in [("acme", "mine"), ("other", "theirs")] {
        let token = estate.field(id, "token");
        admin.exec(&format!(
            "insert into data.dumped values ('{token}', '{text}')"
        ));
    }
    run(&estate, &["tenant", "delete", "acme", "--dump", "acme.sql"]);
    let text = std::fs::read_to_string(estate.office.path().join("acme.sql")).unwrap();
    assert!(text.contains("mine") && !text.contains("theirs"), "{text}");
    assert!(
        text.contains("COPY \"dumped\" (text) FROM stdin;"),
        "{text}"
    );
    admin.exec("drop table data.dumped");
}

#[test]
fn every_record_is_rebuilt_from_its_events() {
    let estate = Estate::new();
    estate.create("acme", "schema");
    estate.create("globex", "row");
    estate.create("gone", "row");
    let commands: [&[&str]; 9] = [
        &[
            "tenant",
            "set",
            "acme",
            "plan=professional",
            "query_timeout=5s",
            "metadata={\"logo\": \"a.svg\"}",
        ],
        &["tenant", "set", "acme", "query_timeout=default"],
        &["tenant", "resize", "acme", "--pool-size", "7"],
        &["tenant", "suspend", "acme"],
        &["tenant", "resume", "acme"],
        &["tenant", "rotate-password", "globex"],
        &["tenant", "delete", "gone", "--grace", "0s"],
        &[
            "key",
            "create",
            "acme",
            "--name",
            "third",
            "--allow",
            "10.0.0.0/8",
            "--expires",
            "1h",
        ],
        &["tenant", "delete", "globex"],
    ];
    for command in commands {
        run(&estate, command);
    }
    let listed = estate.office.json(&["key", "list", "acme"]);
    let key = |number: usize| listed[number]["id"].as_str().unwrap().to_owned();
    run(&estate, &["key", "revoke", "acme", &key(0)]);
    run(&estate, &["key", "rotate", "acme", &key(1)]);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (control, actor) = estate.control().await;
        let mut db = control.registry.pool.acquire().await.unwrap();
        let rows = registry::tenants(&mut db, "", 10).await.unwrap();
        assert_eq!(rows.len(), 2);
        for row in rows {
            let mut record = tenant_record(&row);
            for key in registry::keys(&mut db, &row.id).await.unwrap() {
                record.extend(key_record(&key));
            }
            let rebuilt = control.rebuilt(&actor, &row.id).await.unwrap();
            assert_eq!(Value::Object(rebuilt), Value::Object(record), "{}", row.id);
        }
        assert_eq!(control.rebuilt(&actor, "gone").await.unwrap(), Map::new());
    });
}

#[test]
fn a_tenant_is_shown_as_it_was() {
    let estate = Estate::new();
    estate.create("acme", "row");
    let now = || {
        estate.registry().value("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
    };
    let then = now();
    run(&estate, &["tenant", "set", "acme", "plan=professional"]);
    let later = now();
    run(&estate, &["tenant", "delete", "acme", "--grace", "0s"]);
    let show = |at: &str| estate.office.json(&["tenant", "show", "acme", "--at", at]);
    assert_eq!(show(&then)["plan"], "custom");
    assert_eq!(show(&later)["plan"], "professional");
    assert_eq!(show(&later)["status"], "active");
    let end = now();
    let told = estate.fails(&["tenant", "show", "acme", "--at", &end]);
    assert!(told.contains("there is no tenant \"acme\""), "{told}");
    let told = estate.fails(&["tenant", "show", "acme", "--at", "1000d"]);
    assert!(told.contains("there is no tenant \"acme\""), "{told}");
}

#[test]
fn a_tenants_own_token_ends_nothing_and_sees_no_other() {
    let estate = Estate::new();
    estate.create("acme", "row");
    estate.create("other", "row");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (control, operator) = estate.control().await;
        let mut own = operator.clone();
        own.tenant = Some(pgusher::tenant::TenantId::new("acme").unwrap());
        let forbidden = |error| matches!(error, ControlError::Forbidden(_));
        assert!(forbidden(
            control.suspend(&own, "acme", "").await.unwrap_err()
        ));
        assert!(forbidden(
            control.rotate_password(&own, "acme").await.unwrap_err()
        ));
        assert!(forbidden(control.sweep(&own).await.unwrap_err()));
        assert!(forbidden(control.clusters(&own).await.unwrap_err()));
        let seen = control.list_tenants(&own, Page::default()).await.unwrap();
        assert_eq!(seen.items.len(), 1);
        let other = control.history(&own, "other", Page::default()).await;
        assert!(matches!(other, Err(ControlError::NotFound { .. })));
        let keys = control.list_keys(&own, "acme", &Page::default()).await;
        assert!(keys.is_ok());
    });
}

//! Tenants are made whole, gone on with, or taken back.

use crate::harness::{
    estate::{Estate, ground, traces},
    eventually, frames,
};
use pgusher::control::{ControlError, NewTenant, Page, TenantChange};
use serde_json::json;
use std::{collections::HashSet, fs, process::Child};

fn new(id: &str, tier: &str) -> NewTenant {
    serde_json::from_value(json!({"id": id, "tier": tier})).unwrap()
}

/// Ends a process as `kill -9` does, when a statement of its waits for what the test holds.
fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Waits until somebody waits for a lock.
fn waits(admin: &mut crate::harness::Client, database: &str) {
    let sql = format!(
        "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock' and application_name = 'pgusher' and ('{database}' = '' or datname = '{database}')"
    );
    eventually("somebody waits for a lock", || admin.value(&sql) == "t");
}

#[test]
fn a_tenant_of_each_tier_is_made_with_one_command() {
    let estate = Estate::new();
    for (tier, made) in [
        ("database", Some("DatabaseCreated")),
        ("schema", Some("SchemaCreated")),
        ("row", None),
    ] {
        let created = estate.create(tier, tier);
        let tenant = &created["tenant"];
        assert_eq!(tenant["status"], "active");
        let token = tenant["token"].as_str().unwrap();
        assert_eq!(tenant["role"], format!("t_{token}"));
        let key = created["key"]["key"].as_str().unwrap();
        assert!(key.starts_with("pgu_"), "{tier}");
        let url = created["url"].as_str().unwrap();
        assert_eq!(
            url,
            format!("postgres://{tier}:{key}@127.0.0.1:6432/{tier}")
        );
        assert_eq!(created["read_only_key"]["scope"], "read_only");
        assert_ne!(created["read_only_url"], created["url"]);
        let roles = format!(
            "select count(*) from pg_roles where rolname in ('t_{token}', 'r_{token}') and rolcanlogin"
        );
        assert_eq!(ground().admin().value(&roles), "2", "{tier}");
        let kinds: Vec<_> = ["TenantCreated", "ProvisioningStarted"]
            .into_iter()
            .chain(made)
            .chain(["AccessGranted", "AccessGranted", "Activated"])
            .collect();
        assert_eq!(estate.events(tier), kinds);
    }
    let listed = estate.office.json(&["tenant", "list"]);
    let ids: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|tenant| &tenant["id"])
        .collect();
    assert_eq!(ids, ["database", "row", "schema"]);
}

#[test]
fn no_secret_is_in_the_registry_or_in_what_is_shown_later() {
    let estate = Estate::new();
    let created = estate.create("acme", "row");
    let key = created["key"]["key"].as_str().unwrap();
    let (control, password) = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (control, _) = estate.control().await;
        let sealed: Vec<u8> = sqlx::query_scalar("select password from pgusher.tenant")
            .fetch_one(&control.registry.pool)
            .await
            .unwrap();
        let purpose = pgusher::crypto::Purpose {
            owner: "tenant:acme",
            what: "password",
        };
        let opened = control
            .registry
            .keyring
            .open(purpose, pgusher::crypto::Sealed(&sealed));
        let password = String::from_utf8(opened.unwrap().to_vec()).unwrap();
        (control, password)
    });
    assert_eq!(password.len(), 52);
    let mut registry = estate.registry();
    let everything = registry.value(
        "select (select string_agg(t::text, ' ') from pgusher.tenant t) || \
         (select string_agg(k::text, ' ') from pgusher.api_key k) || \
         (select string_agg(e::text, ' ') from pgusher.event e)",
    );
    let later = ["show", "history"].map(|command| {
        estate
            .office
            .run(&["tenant", command, "acme", "--json"])
            .out
    });
    let debug = format!("{control:?}");
    for text in [&everything, &later[0], &later[1], &debug] {
        assert!(!text.contains(key) && !text.contains(&password));
    }
    assert!(everything.contains("acme"));
}

#[test]
fn what_cannot_be_made_is_refused_with_the_way_out() {
    let estate = Estate::new();
    estate.create("acme", "row");
    for (arguments, says) in [
        (&["Acme", "--tier", "row"][..], "\"acme\": use that"),
        (
            &["acme", "--tier", "row"],
            "there is a tenant \"acme\" already",
        ),
        (&["a b", "--tier", "row"], "' '"),
        (&["b", "--tier", "cloud"], "must be one of \"database\""),
        (
            &["b", "--tier", "schema", "--variant", "shared"],
            "for the tier \"row\" only",
        ),
        (
            &["b", "--tier", "row", "--cluster", "nowhere"],
            "there is no cluster \"nowhere\"",
        ),
        (
            &["b", "--tier", "row", "--set", "pool_size=0"],
            "1 to 10000",
        ),
        (
            &["b", "--tier", "row", "--set", "colour=red"],
            "there is no such key",
        ),
        (
            &["b", "--tier", "row", "--set", "time_zone=Mars/North"],
            "no time zone",
        ),
        (
            &[
                "b",
                "--tier",
                "row",
                "--set",
                "pool_size=2",
                "--set",
                "min_pool_size=3",
            ],
            "min_pool_size: 3 is more than pool_size, 2",
        ),
    ] {
        let told = estate.fails(&[&["tenant", "create"], arguments].concat());
        assert!(told.contains(says), "{arguments:?}: {told}");
    }
    estate.add_cluster("other", &[]);
    let told = estate.fails(&["tenant", "create", "b", "--tier", "row"]);
    assert!(told.contains("name one of main, other"), "{told}");
    assert_eq!(
        estate
            .registry()
            .value("select count(*) from pgusher.tenant"),
        "1"
    );
}

#[test]
fn a_cluster_that_cannot_be_used_leaves_nothing_behind() {
    let estate = Estate::new();
    let mut admin = ground().admin();
    admin.exec("create role tired login superuser password 'right'");
    let mut registry = estate.registry();
    let create = ["tenant", "create", "acme", "--tier", "schema"];
    for (sql, says) in [
        (
            "update pgusher.cluster set admin_role = 'tired'",
            "refused the login of \"tired\"",
        ),
        (
            "update pgusher.cluster set primary_url = 'postgres://127.0.0.1:1'",
            "does not answer",
        ),
    ] {
        registry.exec(sql);
        let told = estate.fails(&create);
        assert!(told.contains(says), "{told}");
        registry.exec("update pgusher.cluster set admin_role = 'admin'");
    }
    registry.exec(&format!(
        "update pgusher.cluster set primary_url = '{}'",
        ground().endpoint().url()
    ));
    admin.exec("create role reading login superuser; alter role reading set default_transaction_read_only = on");
    admin.exec("grant by_trust to reading");
    registry.exec("update pgusher.cluster set admin_role = 'reading'");
    let told = estate.fails(&create);
    assert!(told.contains("can't be written to"), "{told}");
    admin.exec("create role weak login; grant by_trust to weak; grant connect on database postgres to weak");
    registry.exec("update pgusher.cluster set admin_role = 'weak'");
    let told = estate.fails(&create);
    assert!(told.contains("CREATEROLE and CREATEDB"), "{told}");
    assert_eq!(registry.value("select count(*) from pgusher.tenant"), "0");
    let events = registry.value("select count(*) from pgusher.event where tenant = 'acme'");
    assert_eq!(events, "0");
}

#[test]
fn what_was_made_is_taken_back_when_a_template_fails() {
    let estate = Estate::new();
    let folder = estate.office.path().join("templates");
    for tier in ["database", "schema", "row"] {
        fs::create_dir_all(folder.join(tier)).unwrap();
        let template = folder.join(tier).join("0001_accounts.sql");
        fs::write(template, "creat table accounts (id bigint)").unwrap();
    }
    let file = estate.office.path().join("proxy.toml");
    let toml = fs::read_to_string(&file).unwrap();
    let templates = "\n[templates]\ndirectory = \"templates\"\n";
    fs::write(&file, toml.clone() + templates).unwrap();
    for tier in ["database", "schema", "row"] {
        let told = estate.fails(&["tenant", "create", tier, "--tier", tier]);
        let says = "its templates can't be applied in cluster \"main\"; everything was taken back";
        assert!(told.contains(says), "{told}");
        assert_eq!(estate.field(tier, "id"), "");
        let history = estate.office.json(&["tenant", "history", tier]);
        let token = &history[0]["changes"]["token"]["after"];
        assert_eq!(traces(token.as_str().unwrap()), "0", "{tier}");
        let kinds = estate.events(tier);
        assert_eq!(
            kinds,
            ["TenantCreated", "ProvisioningStarted", "ProvisioningFailed"]
        );
    }
    fs::write(&file, toml).unwrap();
    assert_eq!(
        estate.create("schema", "schema")["tenant"]["status"],
        "active"
    );
}

#[test]
fn what_cannot_be_taken_back_is_left_with_the_way_on() {
    let estate = Estate::new();
    // The shared database belongs to the superuser; this admin may make roles, and nothing in it.
    estate.create("first", "schema");
    let mut admin = ground().admin();
    admin.exec("create role clerk login createrole createdb; grant by_trust to clerk");
    // Others change the same rows of the catalogue meanwhile.
    let grant = "grant connect on database postgres, pgusher_schemas to clerk";
    eventually("it is granted", || {
        frames::code(&admin.query(grant)).is_empty()
    });
    let mut registry = estate.registry();
    registry.exec("update pgusher.cluster set admin_role = 'clerk'");
    let told = estate.fails(&["tenant", "create", "acme", "--tier", "schema"]);
    assert!(
        told.contains("pgusher tenant resume-provisioning acme"),
        "{told}"
    );
    assert_eq!(estate.field("acme", "status"), "provisioning");
    let token = estate.field("acme", "token");
    registry.exec("update pgusher.cluster set admin_role = 'admin'");
    let made = estate
        .office
        .json(&["tenant", "resume-provisioning", "acme"]);
    assert_eq!(made["tenant"]["token"], token.as_str());
    assert_eq!(made["tenant"]["status"], "active");
    let told = estate.fails(&["tenant", "resume-provisioning", "acme"]);
    assert!(told.contains("is active, not half made"), "{told}");
}

#[test]
fn a_creation_that_is_killed_while_its_place_is_made_goes_on_under_the_same_names() {
    let estate = Estate::new();
    // A cluster of the test's own: it holds everybody up.
    let ground = crate::harness::Postgres::start();
    let url = ground.endpoint().url();
    let add = [
        "cluster",
        "add",
        "own",
        "--primary",
        &url,
        "--admin-role",
        "admin",
    ];
    estate.office.run(&add).succeeded();
    let create = [
        "tenant",
        "create",
        "acme",
        "--tier",
        "database",
        "--cluster",
        "own",
    ];
    let mut holder = ground.admin();
    holder.exec("begin; lock table pg_authid in share row exclusive mode");
    let child = estate.start(&create);
    waits(&mut ground.admin(), "");
    kill(child);
    assert_eq!(estate.field("acme", "status"), "provisioning");
    let token = estate.field("acme", "token");
    let other = [
        "tenant",
        "create",
        "acme",
        "--tier",
        "row",
        "--cluster",
        "own",
    ];
    eventually(
        "another tier is refused, once the killed one's turn is over",
        || estate.fails(&other).contains("resume-provisioning acme"),
    );
    holder.exec("rollback");
    let created = estate.office.json(&create);
    assert_eq!(created["tenant"]["token"], token.as_str());
    assert_eq!(created["tenant"]["status"], "active");
    let kinds = estate.events("acme");
    assert_eq!(
        kinds
            .iter()
            .filter(|kind| *kind == "ProvisioningStarted")
            .count(),
        2
    );
    assert_eq!(kinds.last().unwrap(), "Activated");
}

#[test]
fn a_creation_that_is_killed_before_it_is_written_is_gone_on_with_by_a_sweep() {
    let estate = Estate::new();
    let mut holder = estate.registry();
    holder.exec("begin; lock table pgusher.api_key in share mode");
    let child = estate.start(&["tenant", "create", "acme", "--tier", "schema"]);
    let database = holder.value("select current_database()");
    waits(&mut estate.registry(), &database);
    kill(child);
    let token = estate.field("acme", "token");
    assert_eq!(estate.field("acme", "status"), "provisioning");
    holder.exec("rollback");
    eventually("the sweep has gone on with it", || {
        estate.office.json(&["tenant", "sweep"])["activated"] == json!(["acme"])
    });
    assert_eq!(estate.field("acme", "status"), "active");
    assert_eq!(estate.field("acme", "token"), token);
    assert_eq!(estate.office.json(&["key", "list", "acme"]), json!([]));
    estate.office.run(&["key", "create", "acme"]).succeeded();
}

#[test]
fn a_half_made_tenant_can_be_deleted() {
    let estate = Estate::new();
    let mut holder = estate.registry();
    holder.exec("begin; lock table pgusher.api_key in share mode");
    let child = estate.start(&["tenant", "create", "acme", "--tier", "database"]);
    let database = holder.value("select current_database()");
    waits(&mut estate.registry(), &database);
    kill(child);
    let token = estate.field("acme", "token");
    holder.exec("rollback");
    assert_ne!(traces(&token), "0");
    estate
        .office
        .run(&["tenant", "delete", "acme", "--grace", "0s"])
        .succeeded();
    assert_eq!(traces(&token), "0");
    assert_eq!(estate.field("acme", "id"), "");
}

#[test]
fn two_who_make_the_same_tenant_make_one() {
    let estate = Estate::new();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (control, actor) = estate.control().await;
        let made = [(); 5].map(|()| {
            let (control, actor) = (control.clone(), actor.clone());
            tokio::spawn(async move { control.create_tenant(&actor, new("acme", "schema")).await })
        });
        let mut succeeded = 0;
        for task in made {
            match task.await.unwrap() {
                Ok(_) => succeeded += 1,
                Err(ControlError::Conflict(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(succeeded, 1);
    });
}

#[test]
fn a_hundred_at_once_are_all_made() {
    let estate = Estate::new();
    let tier = |number: usize| ["schema", "row", "database", "row", "schema"][number % 5];
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (control, actor) = estate.control().await;
        let tasks: Vec<_> = (0..100)
            .map(|number| {
                let (control, actor) = (control.clone(), actor.clone());
                let new = new(&format!("t-{number}"), tier(number));
                tokio::spawn(async move { control.create_tenant(&actor, new).await })
            })
            .collect();
        let mut tokens = HashSet::new();
        for task in tasks {
            let created = task.await.unwrap().unwrap();
            assert_eq!(created.tenant.status, "active");
            tokens.insert(created.tenant.token);
        }
        assert_eq!(tokens.len(), 100);
        let page = |after| Page {
            limit: Some(60),
            after,
        };
        let first = control.list_tenants(&actor, page(None)).await.unwrap();
        let second = control
            .list_tenants(&actor, page(first.next.clone()))
            .await
            .unwrap();
        assert_eq!((first.items.len(), second.items.len()), (60, 40));
        assert_eq!(second.next, None);
    });
}

#[test]
fn changes_are_told_by_kind_and_fold_into_the_record() {
    let estate = Estate::new();
    estate.create("acme", "row");
    let office = &estate.office;
    let set = |change: &str| office.run(&["tenant", "set", "acme", change]).succeeded();
    set("pool_size=40");
    set("pool_size=10");
    set("query_timeout=30s");
    set("settings={\"work_mem\": \"64MB\"}");
    set("time_zone=Europe/Zurich");
    set("time_zone=Europe/Zurich");
    office
        .run(&[
            "tenant",
            "resize",
            "acme",
            "--pool-mode",
            "session",
            "--min-pool-size",
            "2",
        ])
        .succeeded();
    let kinds = estate.events("acme");
    let kinds: Vec<_> = kinds
        .iter()
        .skip_while(|kind| *kind != "Activated")
        .skip(1)
        .collect();
    assert_eq!(
        kinds,
        [
            "ScaledUp",
            "ScaledDown",
            "ConfigUpdated",
            "ConfigUpdated",
            "ConfigUpdated",
            "ConnectionPoolResized"
        ]
    );
    let shown = office.json(&["tenant", "show", "acme"]);
    assert_eq!(shown["query_timeout"], 30_000);
    assert_eq!(shown["settings"]["work_mem"], "64MB");
    assert_eq!(shown["pool_mode"], "session");
    set("pool_size=default");
    assert!(office.json(&["tenant", "show", "acme"])["pool_size"].is_null());
    let told = estate.fails(&["tenant", "set", "acme", "min_pool_size=100"]);
    assert!(told.contains("more than pool_size, 20"), "{told}");
    let told = estate.fails(&["tenant", "resize", "acme"]);
    assert!(told.contains("--pool-size 40"), "{told}");
}

#[test]
fn a_change_that_changes_nothing_is_no_event() {
    let estate = Estate::new();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (control, actor) = estate.control().await;
        control
            .create_tenant(&actor, new("acme", "row"))
            .await
            .unwrap();
        let before = control
            .history(&actor, "acme", Page::default())
            .await
            .unwrap();
        let same = TenantChange {
            plan: Some("custom".to_owned()),
            ..TenantChange::default()
        };
        control.update_tenant(&actor, "acme", same).await.unwrap();
        let after = control
            .history(&actor, "acme", Page::default())
            .await
            .unwrap();
        assert_eq!(before.items.len(), after.items.len());
    });
}

//! What `pgusher cluster add`, `harden` and `verify` report, and whether they find what somebody has
//! opened by hand.

use super::places;
use crate::harness::{Client, Postgres, office::Office, postgres::ADMIN, programs::pgusher};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

/// A cluster for this module: its privileges are changed.
fn own() -> &'static Postgres {
    static OWN: OnceLock<Postgres> = OnceLock::new();
    OWN.get_or_init(Postgres::start)
}

/// One test at a time looks at it.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An office whose registry knows a cluster, `main`.
struct Desk {
    office: Office,
    postgres: &'static Postgres,
}

/// How a command ended.
struct End {
    code: i32,
    out: String,
    err: String,
}

impl Desk {
    fn new(postgres: &'static Postgres, options: &[&str]) -> (Self, End) {
        let desk = Self {
            office: Office::new(Postgres::shared().endpoint()),
            postgres,
        };
        let url = postgres.endpoint().url();
        let add = ["cluster", "add", "main", "--primary", &url];
        let added = desk.run(&[&add[..], options].concat());
        (desk, added)
    }

    fn of_superuser(options: &[&str]) -> Self {
        let admin = ["--admin-role", ADMIN];
        let (desk, added) = Self::new(own(), &[&admin[..], options].concat());
        assert_eq!(added.code, 0, "{}", added.err);
        desk
    }

    fn run(&self, arguments: &[&str]) -> End {
        let file = self.office.path().join("proxy.toml");
        let config = ["--config", file.to_str().unwrap()];
        let output = pgusher(&[arguments, &config].concat());
        End {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn create(&self, id: &str, tier: &str) -> Made {
        self.office.json(&["tenant", "create", id, "--tier", tier]);
        let field = |name: &str| {
            self.office.admin().value(&format!(
                "select {name} from pgusher.tenant where id = '{id}'"
            ))
        };
        Made {
            role: field("role"),
            database: field("database_name"),
        }
    }

    fn delete(&self, id: &str) {
        let delete = ["tenant", "delete", id, "--grace", "0s"];
        self.office.run(&delete).succeeded();
    }

    fn inside(&self, database: &str) -> Client {
        self.postgres.endpoint().admin_of(database)
    }

    /// That nothing is open.
    fn holds(&self, command: &[&str]) {
        let end = self.run(command);
        assert_eq!(end.code, 0, "{command:?}: {}{}", end.out, end.err);
        assert!(!end.out.contains("OPEN"), "{}", end.out);
    }

    /// That these are open, by exit code, on stderr, in the table and in JSON.
    fn tells(&self, command: &[&str], names: &[&str], word: &str) {
        let end = self.run(command);
        assert_eq!(end.code, 1, "{command:?}: {}{}", end.out, end.err);
        let told = end.err.split("it does not hold: ").nth(1);
        let told = told.unwrap_or_else(|| panic!("{}", end.err));
        let told: BTreeSet<_> = told.trim().split(", ").collect();
        for name in names {
            assert!(told.contains(name), "{name} in {told:?}");
            let line = end.out.lines().find(|line| line.contains(name)).unwrap();
            assert!(line.contains("OPEN"), "{line}");
        }
        assert!(end.out.contains(word), "{word} in {}", end.out);
        let end = self.run(&[command, &["--json"]].concat());
        assert_eq!(end.code, 1, "{}", end.err);
        let report: Value = serde_json::from_str(&end.out).unwrap();
        let open = open(&report);
        for name in names {
            assert!(open.contains(*name), "{name} in {open:?}");
        }
    }
}

struct Made {
    role: String,
    database: String,
}

/// The names of the checks that found something, but for what a known hole tells.
fn open(report: &Value) -> BTreeSet<String> {
    let checks = report["checks"].as_array().unwrap().iter();
    let open = checks.filter(|check| check["outcome"]["open"]["how"].is_string());
    open.filter(|check| check["hole"].is_null())
        .map(|check| check["name"].as_str().unwrap().to_owned())
        .collect()
}

fn names(list: &Value) -> BTreeSet<&str> {
    let list = list.as_array().unwrap().iter();
    list.map(|one| one["name"].as_str().unwrap()).collect()
}

const VERIFY: [&str; 3] = ["cluster", "verify", "main"];

#[test]
fn a_cluster_that_holds_is_told_with_its_known_holes_and_exit_code_0() {
    let _turn = turn();
    let desk = Desk::of_superuser(&[]);
    for tier in ["schema", "row", "database"] {
        desk.create(tier, tier);
    }
    let end = desk.run(&VERIFY);
    assert_eq!(end.code, 0, "{}{}", end.out, end.err);
    for part in [
        "hardening",
        "database.login_victim",
        "schema.read_rows",
        "row.row_security",
        "known: object_names:",
        "known: prepared_transactions:",
    ] {
        assert!(end.out.contains(part), "{part} in {}", end.out);
    }
    let report = desk.office.json(&VERIFY);
    assert_eq!(open(&report), BTreeSet::new());
    let holes = names(&report["holes"]);
    // The tests' server has a database that lets everybody in, and prepared transactions.
    let expected = [
        "comments",
        "database_access",
        "object_names",
        "object_texts",
        "prepared_transactions",
        "view_locks",
    ];
    assert_eq!(holes, BTreeSet::from(expected));
    for hole in report["holes"].as_array().unwrap() {
        assert!(!hole["way_out"].as_str().unwrap().is_empty(), "{hole}");
    }
    let hardened = desk.run(&["cluster", "harden", "main"]);
    assert_eq!(hardened.code, 0, "{}", hardened.err);
    assert!(hardened.out.contains("cluster main is hardened"));
    assert!(hardened.out.contains("open: prepared_transactions: "));
    for tier in ["schema", "row", "database"] {
        desk.delete(tier);
    }
}

#[test]
fn what_the_profile_compatible_leaves_open_is_told() {
    let _turn = turn();
    let desk = Desk::of_superuser(&[
        "--profile",
        "compatible",
        "--schema-database",
        "compatible_schemas",
        "--row-database",
        "compatible_rows",
    ]);
    desk.create("acme", "schema");
    let report = desk.office.json(&VERIFY);
    assert_eq!(open(&report), BTreeSet::new());
    let holes = names(&report["holes"]);
    for name in ["definitions", "row_counts", "role_settings"] {
        assert!(holes.contains(name), "{name} in {holes:?}");
    }
    let end = desk.run(&["tenant", "verify", "acme"]);
    assert_eq!(end.code, 0, "{}", end.err);
    assert!(end.out.contains("known (definitions): "), "{}", end.out);
    assert!(!end.out.contains("OPEN"), "{}", end.out);
    desk.delete("acme");
    own().admin().exec("drop database compatible_schemas");
}

#[test]
fn what_an_admin_without_superuser_cannot_close_is_told_and_is_no_failure() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _turn = runtime.block_on(places::turn());
    let managed = places::managed();
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("pw");
    fs::write(&password, "operator").unwrap();
    let (desk, added) = Desk::new(
        managed,
        &[
            "--admin-role",
            "operator",
            "--admin-password-file",
            password.to_str().unwrap(),
        ],
    );
    assert_eq!(added.code, 0, "{}", added.err);
    for part in [
        "open: activity: ",
        "harden the cluster once with a superuser",
    ] {
        assert!(added.out.contains(part), "{part} in {}", added.out);
    }
    let end = desk.run(&VERIFY);
    assert_eq!(end.code, 0, "{}{}", end.out, end.err);
    for part in ["known: activity:", "known (activity): "] {
        assert!(end.out.contains(part), "{part} in {}", end.out);
    }
    assert!(!end.out.contains("OPEN"), "{}", end.out);
    let report = desk.office.json(&VERIFY);
    let holes = names(&report["holes"]);
    for name in ["activity", "sizes", "role_settings", "shared_comments"] {
        assert!(holes.contains(name), "{name} in {holes:?}");
    }
    let listed = desk.office.json(&["cluster", "harden", "main"]);
    assert!(names(&listed["open_holes"]).contains("activity"));
}

#[test]
fn what_is_opened_by_hand_is_named_with_exit_code_1_and_closed_by_harden() {
    let _turn = turn();
    let desk = Desk::of_superuser(&[]);
    let [shared, own] = ["schema", "database"].map(|tier| desk.create(tier, tier));
    let of_own = ["tenant", "verify", "database"];
    let open = "grant execute on function pg_stat_get_activity(int) to public";
    desk.holds(&VERIFY);
    desk.inside("postgres").exec(open);
    desk.tells(&VERIFY, &["hardening"], "open again: activity");
    desk.inside(&shared.database).exec(open);
    let names = ["hardening", "schema.hardening", "schema.activity"];
    desk.tells(&VERIFY, &names, "its login can");
    desk.inside(&own.database).exec(open);
    desk.tells(&of_own, &["hardening", "activity"], "cluster harden");
    desk.inside("postgres").exec(&format!(
        "grant connect on database {} to public",
        own.database
    ));
    desk.tells(&VERIFY, &["hardening"], "activity, database_access");
    desk.inside(&own.database)
        .exec("grant execute on function lo_create(oid) to public");
    desk.tells(&of_own, &["hardening", "reader_objects"], "large_objects");
    desk.office.run(&["cluster", "harden", "main"]).succeeded();
    desk.holds(&VERIFY);
    desk.holds(&of_own);
    for tier in ["schema", "database"] {
        desk.delete(tier);
    }
}

#[test]
fn a_tenant_that_was_given_rights_is_named() {
    let _turn = turn();
    let desk = Desk::of_superuser(&[]);
    let [one, two] = ["one", "two"].map(|id| desk.create(id, "schema"));
    let rows = desk.create("rows", "row");
    let mut admin = desk.inside("postgres");
    for (given, taken, of_cluster, of_tenant, word) in [
        (
            format!("alter role {} superuser", one.role),
            format!("alter role {} nosuperuser", one.role),
            &["attributes"][..],
            &["attributes"][..],
            &one.role,
        ),
        (
            format!("grant {} to {}", two.role, one.role),
            format!("revoke {} from {}", two.role, one.role),
            &["members"],
            &["members", "memberships"],
            &two.role,
        ),
    ] {
        admin.exec(&given);
        desk.tells(&VERIFY, of_cluster, word);
        desk.tells(&["tenant", "verify", "one"], of_tenant, word);
        admin.exec(&taken);
    }
    let mut inside = desk.inside(&rows.database);
    inside.exec("create table data.careless (tenant_id text primary key, secret text)");
    desk.tells(&VERIFY, &["row.row_security"], "careless does not force");
    let verify = ["tenant", "verify", "rows"];
    desk.tells(&verify, &["row_security"], "careless does not force");
    inside.exec("drop table data.careless");
    desk.holds(&VERIFY);
    desk.holds(&verify);
    drop(inside);
    for id in ["one", "two", "rows"] {
        desk.delete(id);
    }
}

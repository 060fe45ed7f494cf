//! `pgusher migrate tenants` and `pgusher protect`, as an operator runs them.

use super::{
    harness::{
        Connect, eventually, eventually_some, office::Office, postgres::signal, proxy::PROGRAM,
    },
    templates::postgres,
};
use serde_json::Value;
use std::{
    fs,
    process::{Command, Stdio},
};

const FIRST: (&str, &str) = (
    "0001_notes.sql",
    "CREATE TABLE notes (id bigint PRIMARY KEY);",
);

/// An operator's desk with a cluster, and a directory of templates.
fn office() -> Office {
    let office = Office::new(postgres().endpoint());
    let toml = office.path().join("proxy.toml");
    let templates = office.path().join("templates");
    for tier in ["database", "schema", "row"] {
        fs::create_dir_all(templates.join(tier)).unwrap();
    }
    let text = fs::read_to_string(&toml).unwrap();
    let directory = templates.display();
    fs::write(
        &toml,
        format!("{text}[templates]\ndirectory = \"{directory}\"\n"),
    )
    .unwrap();
    let rows = format!("rows {}", office.url().rsplit('/').next().unwrap());
    office.add_cluster("main", postgres().endpoint(), &["--row-database", &rows]);
    office
}

fn write(office: &Office, (name, text): (&str, &str)) {
    for tier in ["database", "schema", "row"] {
        fs::write(office.path().join("templates").join(tier).join(name), text).unwrap();
    }
}

fn create(office: &Office, tier: &str, count: usize) -> Vec<String> {
    let id = |number: usize| format!("{tier}-{number:02}");
    let ids: Vec<String> = (0..count).map(id).collect();
    for id in &ids {
        office
            .run(&["tenant", "create", id, "--tier", tier])
            .succeeded();
    }
    ids
}

fn migrate(office: &Office, arguments: &[&str]) -> (bool, Value, String) {
    let run = office.run(&[&["migrate", "tenants", "--json"], arguments].concat());
    let outcome = serde_json::from_str(&run.out).unwrap_or(Value::Null);
    (run.is_success, outcome, run.err)
}

fn ids(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap();
    let id = |it: &Value| it["tenant"].as_str().or(it.as_str()).unwrap().to_owned();
    list.iter().map(id).collect()
}

/// The schema of a tenant, which is also its role.
fn schema(office: &Office, id: &str) -> String {
    office.admin().value(&format!(
        "SELECT schema_name FROM pgusher.tenant WHERE id = '{id}'"
    ))
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story of one office")]
fn of_twenty_tenants_the_one_that_fails_does_not_keep_the_others() {
    let office = office();
    let all = create(&office, "schema", 20);
    write(&office, FIRST);
    let mut inside = postgres().endpoint().admin_of("pgusher_schemas");
    let broken = schema(&office, &all[7]);
    inside.exec(&format!("CREATE TABLE {broken}.notes (mine int)"));
    office
        .admin()
        .exec("UPDATE pgusher.tenant SET auto_update = false WHERE id = 'schema-11'");
    office
        .admin()
        .exec("UPDATE pgusher.tenant SET status = 'suspended' WHERE id = 'schema-12'");

    let count = "SELECT count(*) FROM pgusher.event";
    let before = office.admin().value(count);
    let (is_success, planned, _) = migrate(&office, &["--dry-run"]);
    assert!(is_success);
    assert_eq!(planned["done"].as_array().unwrap().len(), 19);
    assert_eq!(planned["done"][0]["pending"][0], "0001_notes");
    assert_eq!(
        office.admin().value(count),
        before,
        "a dry run changes nothing"
    );
    assert_eq!(
        inside.value(&format!(
            "SELECT to_regclass('{}.notes') IS NULL",
            schema(&office, &all[0])
        )),
        "t"
    );

    let (is_success, outcome, talk) = migrate(&office, &["--parallel", "8"]);
    assert!(
        !is_success && talk.contains("1 of 19 tenants failed"),
        "{talk}"
    );
    assert_eq!(ids(&outcome["failed"]), ["schema-07"]);
    let reason = outcome["failed"][0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("0001_notes.sql:1: relation \"notes\" already exists"),
        "{reason}"
    );
    assert_eq!(ids(&outcome["skipped"]), ["schema-11"]);
    assert_eq!(outcome["done"].as_array().unwrap().len(), 18);
    let versions = "SELECT count(*) FROM pgusher.tenant WHERE template_version = 1";
    assert_eq!(office.admin().value(versions), "18");
    let events = "SELECT count(*) FROM pgusher.event WHERE kind = 'MigrationsCompleted' AND facts = '{\"from\": 0, \"to\": 1}'";
    assert_eq!(office.admin().value(events), "18");

    inside.exec(&format!("DROP TABLE {broken}.notes"));
    let (is_success, outcome, _) = migrate(&office, &[]);
    assert!(is_success);
    let changed: Vec<_> = outcome["done"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["from"] != it["to"])
        .collect();
    assert_eq!(changed.len(), 1, "the others had it");
    let (is_success, outcome, _) = migrate(&office, &["--tenant", "schema-11"]);
    assert!(is_success);
    assert_eq!(
        ids(&outcome["done"]),
        ["schema-11"],
        "who is named is not left out"
    );
    assert_eq!(office.admin().value(versions), "20");
    assert!(office.run(&["audit", "verify"]).is_success);
    let said = office.run(&["migrate", "tenants", "--tenant", "nobody"]);
    assert!(
        !said.is_success && said.err.contains("nobody"),
        "{}",
        said.err
    );
}

#[test]
fn what_is_killed_in_the_middle_is_gone_on_with() {
    let office = office();
    let all = create(&office, "schema", 4);
    write(
        &office,
        (
            "0001_a.sql",
            "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1);",
        ),
    );
    write(
        &office,
        (
            "0002_b.sql",
            "INSERT INTO a VALUES (2); SELECT pg_sleep(0.5); INSERT INTO a VALUES (3);",
        ),
    );
    write(&office, ("0003_c.sql", "INSERT INTO a VALUES (4);"));
    let mut inside = postgres().endpoint().admin_of("pgusher_schemas");
    let schemas: Vec<String> = all.iter().map(|id| schema(&office, id)).collect();
    let places = format!("'{}'", schemas.join("', '"));
    for _ in 0..3 {
        let mut child = Command::new(PROGRAM)
            .args(["migrate", "tenants", "--parallel", "2"])
            .current_dir(office.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let under_way = format!(
            "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active' AND usename::text IN (SELECT 'm_' || substr(name, 3) FROM unnest(ARRAY[{places}]) AS name)"
        );
        eventually_some("a template is being applied", || {
            inside.values(&under_way).into_iter().next()
        });
        signal("KILL", &child.id().to_string());
        child.wait().unwrap();
    }
    let (is_success, outcome, talk) = migrate(&office, &[]);
    assert!(is_success, "{outcome} {talk}");
    for schema in &schemas {
        let rows = inside.values(&format!("SELECT id FROM {schema}.a ORDER BY id"));
        assert_eq!(rows, ["1", "2", "3", "4"]);
    }
    let records = format!(
        "SELECT count(*) FROM pgusher.template WHERE transaction IS NULL AND place IN ({places})"
    );
    assert_eq!(inside.value(&records), "12");
    let visitors = format!(
        "SELECT count(*) FROM pg_roles WHERE rolname IN (SELECT 'm_' || substr(name, 3) FROM unnest(ARRAY[{places}]) AS name)"
    );
    eventually("no visitor is left", || inside.value(&visitors) == "0");
}

#[test]
fn tables_are_protected_from_the_command_line() {
    let office = office();
    create(&office, "row", 2);
    let database = office
        .admin()
        .value("SELECT row_database FROM pgusher.cluster");
    let mut inside = postgres().endpoint().admin_of(&database);
    inside.exec("CREATE TABLE public.notes (id int PRIMARY KEY, text text); INSERT INTO public.notes VALUES (1, 'x')");
    let refused = office.run(&["protect", "notes"]);
    assert!(
        !refused.is_success && refused.err.contains("--assign"),
        "{}",
        refused.err
    );
    let planned = office
        .run(&["protect", "notes", "--assign", "row-00", "--dry-run"])
        .succeeded()
        .out;
    assert!(
        planned.contains("CREATE POLICY tenant ON data.\"notes\""),
        "{planned}"
    );
    assert_eq!(
        inside.value("SELECT to_regclass('public.notes') IS NOT NULL"),
        "t"
    );
    office
        .run(&["protect", "notes", "--assign", "row-00"])
        .succeeded();
    let token = office
        .admin()
        .value("SELECT token FROM pgusher.tenant WHERE id = 'row-00'");
    assert_eq!(inside.value("SELECT tenant_id FROM data.notes"), token);
    let again = office.run(&["protect", "notes"]).succeeded().out;
    assert!(again.contains("nothing to do"), "{again}");
    // A new tenant finds the templates' tables and those that were protected.
    write(
        &office,
        ("0001_more.sql", "CREATE TABLE more (id int PRIMARY KEY)"),
    );
    let (is_success, outcome, _) = migrate(&office, &[]);
    assert!(is_success, "{outcome}");
    assert_eq!(ids(&outcome["done"]), ["row-00", "row-01"]);
    let versions = office
        .admin()
        .values("SELECT template_version FROM pgusher.tenant");
    assert_eq!(versions, ["1", "1"]);
    assert_eq!(
        inside.value("SELECT to_regclass('app.more') IS NOT NULL"),
        "t"
    );
}

#[test]
fn a_tenant_that_keeps_a_shared_table_in_use_holds_up_no_other_while_it_is_changed() {
    let office = office();
    write(&office, FIRST);
    let keys: Vec<String> = ["busy", "other"]
        .iter()
        .map(|id| {
            let made = office.json(&["tenant", "create", id, "--tier", "row"]);
            made["key"]["key"].as_str().unwrap().to_owned()
        })
        .collect();
    let proxy = office.serve();
    let connect = |id: &str, key: &str| Connect::to(proxy.address()).user(id).password(key);
    let mut busy = connect("busy", &keys[0]).login();
    busy.exec("begin");
    busy.exec("select * from notes");
    let mut other = connect("other", &keys[1]).login();
    other.exec("insert into notes (id) values (1)");
    let more = (
        "0002_more.sql",
        "ALTER TABLE notes ADD COLUMN text text DEFAULT 'none';",
    );
    write(&office, more);
    let mut change = Command::new(PROGRAM)
        .args(["migrate", "tenants"])
        .current_dir(office.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let rows = office
        .admin()
        .value("SELECT row_database FROM pgusher.cluster");
    let mut admin = postgres().admin();
    let waits = format!(
        "select count(*) from pg_locks l join pg_database d on d.oid = l.database where datname = '{rows}' \
         and not granted and mode = 'AccessExclusiveLock'"
    );
    // It waits, gives up, and waits again.
    for wanted in ["1", "0", "1"] {
        eventually("it waits for a moment", || admin.value(&waits) == wanted);
    }
    assert_eq!(other.value("select count(*) from notes"), "1");
    assert!(change.try_wait().unwrap().is_none(), "it goes on trying");
    busy.exec("commit");
    assert!(change.wait().unwrap().success());
    assert_eq!(other.value("select text from notes"), "none");
}

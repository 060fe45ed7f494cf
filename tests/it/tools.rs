//! psql and `pg_dump` as a tenant uses them, through the proxy, in both profiles: what works, and
//! what is closed.

use crate::harness::{
    Postgres, Proxy, eventually,
    office::Office,
    postgres::ADMIN,
    programs::{Run, program, run},
};
use serde_json::Value;
use std::{fs, sync::OnceLock};

/// A cluster for this module: both profiles share it.
fn own() -> &'static Postgres {
    static OWN: OnceLock<Postgres> = OnceLock::new();
    OWN.get_or_init(Postgres::start)
}

/// Two tenants in a cluster of a profile, each with a table, a view and a function.
struct Two {
    office: Office,
    proxy: Proxy,
    made: [Value; 2],
}

impl Two {
    fn new(profile: &str, tier: &str) -> Self {
        let office = Office::new(Postgres::shared().endpoint());
        let url = own().endpoint().url();
        let [schemas, rows] = ["schemas", "rows"].map(|what| format!("{profile}_{tier}_{what}"));
        let add = ["cluster", "add", "main", "--primary", &url];
        let admin = ["--admin-role", ADMIN, "--profile", profile];
        let databases = ["--schema-database", &schemas, "--row-database", &rows];
        office
            .run(&[&add[..], &admin, &databases].concat())
            .succeeded();
        let made = ["one", "two"].map(|id| office.json(&["tenant", "create", id, "--tier", tier]));
        let proxy = office.serve();
        let two = Self {
            office,
            proxy,
            made,
        };
        for (at, id) in ["one", "two"].into_iter().enumerate() {
            eventually("the tenant logs in", || two.psql(at, "select 1").is_success);
            if tier != "row" {
                let objects = format!(
                    "create table notes_{id} (id int primary key, secret text); \
                     insert into notes_{id} values (1, 'secret of {id}'); \
                     create view view_{id} as select * from notes_{id}; \
                     create function func_{id}() returns int language sql as 'select 1'"
                );
                two.psql(at, &objects).succeeded();
            }
        }
        two
    }

    fn key(&self, at: usize) -> &str {
        let url = self.made[at]["url"].as_str().unwrap();
        url.split([':', '@']).nth(2).unwrap()
    }

    fn run(&self, name: &str, at: usize, arguments: &[&str]) -> Run {
        let tenant = ["one", "two"][at];
        let mut command = program(name, self.proxy.port(), tenant);
        run(command.env("PGPASSWORD", self.key(at)).args(arguments))
    }

    fn psql(&self, at: usize, sql: &str) -> Run {
        self.run("psql", at, &["-X", "-v", "ON_ERROR_STOP=1", "-c", sql])
    }

    /// What psql shows the first tenant for a command of its own.
    fn shows(&self, command: &str) -> String {
        self.psql(0, command).succeeded().out
    }

    fn is_closed(&self, command: &str) {
        let run = self.psql(0, command);
        assert!(!run.is_success, "{command}: {}", run.out);
        assert!(
            run.err.contains("permission denied for"),
            "{command}: {}",
            run.err
        );
    }

    /// Reads a dump into a new database: the rows of the first tenant's table.
    fn restored(&self, dump: &str, name: &str, schema: &str) -> Vec<String> {
        let mut admin = own().admin();
        admin.exec(&format!("create database {name} template template0"));
        let file = self.office.path().join("dump.sql");
        fs::write(&file, dump).unwrap();
        let mut command = program("psql", own().endpoint().port(), ADMIN);
        let script = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", name, "-f"];
        run(command.args(script).arg(file)).succeeded();
        let mut inside = own().endpoint().admin_of(name);
        inside.values(&format!("select secret from {schema}.notes_one"))
    }

    fn schema(&self) -> &str {
        self.made[0]["tenant"]["schema_name"].as_str().unwrap()
    }
}

#[test]
fn psql_shows_a_tenant_its_own_things() {
    for profile in ["strict", "compatible"] {
        for tier in ["database", "schema"] {
            let two = Two::new(profile, tier);
            for (command, has) in [
                ("\\d", "view_one"),
                ("\\dt", "notes_one"),
                ("\\d notes_one", "notes_one_pkey"),
                ("\\dv", "view_one"),
                ("\\di", "notes_one_pkey"),
                ("\\df", "func_one"),
                ("\\dn", two.schema()),
                ("\\dp", "notes_one"),
                ("\\l", "template0"),
                ("\\du", "t_"),
                ("\\dx", "plpgsql"),
            ] {
                let shown = two.shows(command);
                assert!(shown.contains(has), "{profile} {tier} {command}: {shown}");
                // Nothing of the other's is on its search path.
                assert!(
                    !shown.contains("_two"),
                    "{profile} {tier} {command}: {shown}"
                );
            }
            two.is_closed("\\dt+");
            if (profile, tier) == ("strict", "schema") {
                two.is_closed("\\d+ view_one");
                two.is_closed("\\sf func_one");
            } else {
                assert!(two.shows("\\d+ view_one").contains("FROM notes_one"));
                assert!(two.shows("\\sf func_one").contains("select 1"));
            }
        }
    }
}

#[test]
fn psql_shows_a_row_tenant_the_views_that_it_uses() {
    for profile in ["strict", "compatible"] {
        let two = Two::new(profile, "row");
        for command in ["\\d", "\\dt", "\\dv", "\\df", "\\dn", "\\l", "\\du", "\\dp"] {
            two.shows(command);
        }
        assert!(two.shows("\\dn").contains("app"));
        two.is_closed("\\dt+");
    }
}

#[test]
fn a_tenant_dumps_its_own_database_in_both_profiles() {
    for profile in ["strict", "compatible"] {
        let two = Two::new(profile, "database");
        let dump = two.run("pg_dump", 0, &["--no-owner", "--no-privileges"]);
        let dump = dump.succeeded().out;
        assert!(dump.contains("secret of one") && dump.contains("func_one"));
        assert!(!dump.contains("_two"), "{dump}");
        let rows = two.restored(&dump, &format!("restored_{profile}"), two.schema());
        assert_eq!(rows, ["secret of one"]);
    }
}

#[test]
fn a_tenant_of_a_shared_database_dumps_its_schema_in_the_profile_compatible_alone() {
    let two = Two::new("compatible", "schema");
    let schema = format!("--schema={}", two.schema());
    let dump = ["--no-owner", "--no-privileges", &schema];
    let dumped = two.run("pg_dump", 0, &dump).succeeded().out;
    for part in ["secret of one", "func_one", "view_one"] {
        assert!(dumped.contains(part), "{part} in {dumped}");
    }
    assert!(!dumped.contains("_two"), "{dumped}");
    let rows = two.restored(&dumped, "restored_schema", two.schema());
    assert_eq!(rows, ["secret of one"]);
    // Without its name all schemas are asked for, and the others are not the tenant's to lock.
    let all = two.run("pg_dump", 0, &[]);
    assert!(
        !all.is_success && all.err.contains("permission denied"),
        "{}",
        all.err
    );
    assert!(!all.out.contains("secret of two"), "{}", all.out);
    let others = two.made[1]["tenant"]["schema_name"].as_str().unwrap();
    let other = two.run("pg_dump", 0, &[&format!("--schema={others}")]);
    assert!(!other.is_success, "{}", other.out);
    assert!(!other.out.contains("secret of two"), "{}", other.out);

    let two = Two::new("strict", "schema");
    let schema = format!("--schema={}", two.schema());
    let refused = two.run("pg_dump", 0, &[&schema]);
    assert!(!refused.is_success, "{}", refused.out);
    assert!(
        refused.err.contains("permission denied for table pg_class"),
        "{}",
        refused.err
    );
}

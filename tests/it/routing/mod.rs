//! What `pgusher::routing` decides, against PostgreSQL's own catalogue and a hot standby.

mod cases;

use crate::harness::{Client, Postgres, eventually, frames};
use pgusher::routing::{
    Builtins, Catalogue, CatalogueError, Fact, Intent, Reach, Reason, SIGHT, Sight, Target,
    builtins_sql, catalogue_sql,
};
use std::sync::{Arc, OnceLock};

const DATABASE: &str = "routing";
const ALL_SEEN: Sight = Sight {
    views: true,
    policies: true,
};

/// A primary with what the cases speak of, and its standby.
struct Pair {
    primary: Postgres,
    standby: Postgres,
}

impl Pair {
    fn shared() -> &'static Self {
        static SHARED: OnceLock<Pair> = OnceLock::new();
        SHARED.get_or_init(|| {
            let primary = Postgres::start();
            primary.admin().exec(&format!("create database {DATABASE}"));
            primary
                .endpoint()
                .admin_of(DATABASE)
                .exec(cases::DEFINITIONS);
            let standby = primary.standby();
            let pair = Self { primary, standby };
            pair.catch_up();
            pair
        })
    }

    fn primary(&self) -> Client {
        self.primary.endpoint().admin_of(DATABASE)
    }

    fn standby(&self) -> Client {
        self.standby.endpoint().admin_of(DATABASE)
    }

    fn catch_up(&self) {
        let written = self.primary().value("select pg_current_wal_lsn()");
        let replayed = format!("select pg_last_wal_replay_lsn() >= '{written}'");
        let mut standby = self.standby.admin();
        eventually("the standby has replayed", || {
            standby.value(&replayed) == "t"
        });
    }
}

type Rows = Vec<Vec<Option<String>>>;

fn facts(rows: &Rows) -> impl Iterator<Item = Result<Fact<'_>, CatalogueError>> {
    rows.iter().map(|row| {
        assert_eq!(row.len(), 4);
        Fact::from_columns([0, 1, 2, 3].map(|at| row[at].as_deref().map(str::as_bytes)))
    })
}

fn builtins(client: &mut Client) -> Arc<Builtins> {
    let rows = frames::rows(&client.exec(&builtins_sql()));
    assert!(rows.len() > 2000, "{} rows", rows.len());
    Arc::new(Builtins::new(facts(&rows)).unwrap())
}

fn catalogue_of(client: &mut Client, generation: u64, reach: Reach, sight: Sight) -> Catalogue {
    let builtins = builtins(client);
    let question = catalogue_sql(&builtins, reach, sight, &["trusted"]);
    let rows = frames::rows(&client.exec(&question));
    Catalogue::new(generation, builtins, facts(&rows)).unwrap()
}

fn catalogue(client: &mut Client) -> Catalogue {
    catalogue_of(client, 1, Reach::Database, ALL_SEEN)
}

fn reason(text: &str, catalogue: &Catalogue) -> &'static str {
    let verdict = Intent::of(text.as_bytes()).verdict(catalogue);
    assert_eq!(
        verdict.target == Target::Replica,
        verdict.reason == Reason::Read
    );
    verdict.reason.as_str()
}

fn version(client: &mut Client) -> u32 {
    client.value("show server_version_num").parse().unwrap()
}

#[test]
fn postgresqls_own_catalogue_decides_as_the_table_says() {
    let catalogue = catalogue(&mut Pair::shared().primary());
    let mut wrong = Vec::new();
    let reads = cases::READS.iter().map(|text| ("read", *text));
    for (expected, text) in reads.chain(cases::PRIMARY.iter().copied()) {
        let verdict = Intent::of(text.as_bytes()).verdict(&catalogue);
        let found = verdict.reason.as_str();
        // A transaction that only reads is a replica's without being a read.
        if found != expected {
            wrong.push(format!("{text}: {found}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_may_go_to_a_replica_runs_there_and_writes_nothing_on_the_primary() {
    let pair = Pair::shared();
    let (mut primary, mut standby) = (pair.primary(), pair.standby());
    assert_eq!(standby.value("select pg_is_in_recovery()"), "t");
    let is_new = version(&mut primary) >= 170_000;
    let mut wrong = Vec::new();
    for text in cases::READS {
        let there = frames::code(&standby.query(text));
        // A Query has no parameters; and the grammar of 17 is not that of 15.
        let is_known = match there.as_str() {
            "" => true,
            "42P02" => text.contains('$'),
            "42601" | "42883" | "42703" => {
                !is_new && (text.contains("json") || text.contains("0x1F"))
            }
            _ => false,
        };
        if !is_known {
            wrong.push(format!("{text}: {there} on the standby"));
        }
        primary.exec("begin");
        let here = frames::code(&primary.query(text));
        if here != there {
            wrong.push(format!(
                "{text}: {here} on the primary, {there} on the standby"
            ));
        }
        if here.is_empty() {
            let wrote = "select pg_current_xact_id_if_assigned() is not null";
            if primary.value(wrote) == "t" {
                wrong.push(format!("{text}: it writes"));
            }
        }
        primary.exec("rollback");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_standby_refuses_some_of_what_is_kept_from_it() {
    let mut standby = Pair::shared().standby();
    let refused = |code: &str, standby: &mut Client| {
        let mut count = 0;
        for (_, text) in cases::PRIMARY.iter().filter(|(_, text)| !text.is_empty()) {
            standby.exec("begin");
            count += usize::from(frames::code(&standby.query(text)) == code);
            standby.exec("rollback");
        }
        count
    };
    assert!(refused("25006", &mut standby) > 40);
    // What is unlogged isn't there.
    assert_eq!(standby.fails("select * from fast").code(), "0A000");
    assert_eq!(standby.fails("select * from fast_view").code(), "0A000");
    assert_eq!(standby.fails("select * from parts").code(), "0A000");
    let serializable = "begin isolation level serializable read only";
    assert_eq!(standby.fails(serializable).code(), "0A000");
}

#[test]
fn a_function_without_arguments_that_counts_as_free_answers_on_a_standby() {
    let pair = Pair::shared();
    let catalogue = catalogue(&mut pair.primary());
    let mut standby = pair.standby();
    let names = standby.values(
        "select distinct proname from pg_proc where oid < 16384 and pronargs = 0 and prokind = 'f' \
         and prorettype not in (select oid from pg_type where typtype = 'p') order by 1",
    );
    let mut count = 0;
    for name in names {
        let text = format!("select pg_catalog.{name}()");
        if reason(&text, &catalogue) != "read" {
            continue;
        }
        count += 1;
        let code = frames::code(&standby.query(&text));
        assert!(
            !matches!(code.as_str(), "25006" | "55000"),
            "{text}: {code}"
        );
    }
    assert!(count > 20, "{count}");
}

#[test]
fn a_catalogue_is_read_again_after_definitions_have_changed() {
    let pair = Pair::shared();
    let mut admin = pair.primary.admin();
    admin.exec("create database changing");
    let mut client = pair.primary.endpoint().admin_of("changing");
    client.exec("create table t (id int); create view v as select id from t");
    client.exec("create function f() returns int language sql stable as 'select 1'");
    client.exec("create schema trusted");
    let texts = [
        "select id from v",
        "select f()",
        "select id from t",
        "select 1 + 1",
    ];
    let intents = texts.map(|text| Intent::of(text.as_bytes()));
    let mut generation = 0;
    let mut reasons = |client: &mut Client| {
        generation += 1;
        let catalogue = catalogue_of(client, generation, Reach::Database, ALL_SEEN);
        intents
            .each_ref()
            .map(|intent| intent.verdict(&catalogue).reason.as_str())
    };
    assert_eq!(reasons(&mut client), ["read", "untrusted", "read", "read"]);
    client.exec("alter function f() set schema trusted");
    assert_eq!(reasons(&mut client), ["read", "read", "read", "read"]);
    client.exec("alter function trusted.f() volatile");
    client.exec("create or replace view v as select id from t where trusted.f() > 0");
    assert_eq!(
        reasons(&mut client),
        ["relation", "untrusted", "read", "read"]
    );
    client.exec("drop view v; drop function trusted.f; alter table t set unlogged");
    assert_eq!(
        reasons(&mut client),
        ["read", "unknown_function", "relation", "read"]
    );
    client.exec("create type pair as (a int, b int)");
    client.exec("create function cast_it(pair) returns int language sql as 'select 1'");
    client.exec("create cast (pair as int) with function cast_it(pair) as implicit");
    assert_eq!(reasons(&mut client), ["type"; 4]);
}

#[test]
fn where_definitions_are_hidden_every_view_stays_on_the_primary() {
    let pair = Pair::shared();
    let mut admin = pair.primary.admin();
    admin.exec("create database hidden");
    let mut owner = pair.primary.endpoint().admin_of("hidden");
    owner.exec(cases::DEFINITIONS);
    owner.exec("revoke select on pg_rewrite, pg_policy from public");
    owner.exec("create role hidden_one; grant usage on schema public to hidden_one");
    owner.exec("create schema foreign_one; create function foreign_one.f() returns int language sql as 'select 1'");
    owner.exec("set session authorization hidden_one");
    let sight = frames::rows(&owner.exec(SIGHT));
    let [views, policies] = [0, 1].map(|at| sight[0][at].as_deref() == Some("t"));
    let sight = Sight { views, policies };
    assert_eq!(
        sight,
        Sight {
            views: false,
            policies: false
        }
    );
    let builtins = builtins(&mut pair.primary());
    let question = catalogue_sql(&builtins, Reach::Schemas, sight, &[]);
    // Policies aren't for everybody's eyes, and nothing else is asked of them.
    owner.exec("reset session authorization; grant select (oid, polrelid) on pg_policy to public; set session authorization hidden_one");
    let rows = frames::rows(&owner.exec(&question));
    let has = |schema: &str| rows.iter().any(|row| row[1].as_deref() == Some(schema));
    assert!(has("public") && !has("foreign_one") && !has("trusted"));
    let catalogue = Catalogue::new(1, builtins, facts(&rows)).unwrap();
    for (expected, text) in [
        ("read", "select id from t"),
        ("read", "select * from fenced"),
        ("relation", "select * from guarded"),
        ("relation", "select * from calm_view"),
        ("relation", "select * from loud_view"),
        ("relation", "select * from fast"),
        ("untrusted", "select loud()"),
        ("unknown_function", "select foreign_one.f()"),
    ] {
        assert_eq!(reason(text, &catalogue), expected, "{text}");
    }
}

//! What `pgusher::routing` decides, against PostgreSQL's own catalogue and a hot standby.

mod cases;

use crate::harness::{Client, Postgres, eventually, frames, office::Office};
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

fn sight(client: &mut Client) -> Sight {
    let rows = frames::rows(&client.exec(SIGHT));
    let [views, policies] = [0, 1].map(|at| rows[0][at].as_deref() == Some("t"));
    Sight { views, policies }
}

fn builtins(client: &mut Client) -> Arc<Builtins> {
    let sight = sight(client);
    let rows = frames::rows(&client.exec(&builtins_sql(sight)));
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
    client.exec("create cast (pair as int) with function cast_it(pair)");
    let fine = ["read", "unknown_function", "relation", "read"];
    assert_eq!(reasons(&mut client), fine);
    let catalogue = catalogue(&mut client);
    for (expected, text) in [
        ("type", "select row(1, 2)::pair::int"),
        ("type", "select cast(row(1, 2)::pair as integer)"),
        ("read", "select 1::bigint, '{1}'::text"),
        ("unknown_function", "select pair(1)"),
    ] {
        assert_eq!(reason(text, &catalogue), expected, "{text}");
    }
    client.exec("drop cast (pair as int)");
    client.exec("create cast (pair as int) with function cast_it(pair) as implicit");
    assert_eq!(reasons(&mut client), ["type"; 4]);
}

/// A tenant in a database that pgusher has hardened, made by an operator.
fn tenant(tier: &str) -> (Postgres, Office, Client, Client) {
    let postgres = Postgres::start();
    let office = Office::new(postgres.endpoint());
    office.add_cluster("main", postgres.endpoint(), &[]);
    office.json(&["tenant", "create", "acme", "--tier", tier]);
    let field = |name: &str| {
        let sql = format!("select {name} from pgusher.tenant where id = 'acme'");
        office.admin().value(&sql)
    };
    let (role, database) = (field("role"), field("database_name"));
    let admin = postgres.endpoint().admin_of(&database);
    let mut client = postgres.endpoint().admin_of(&database);
    client.exec(&format!("set session authorization {role}"));
    (postgres, office, admin, client)
}

#[test]
fn a_tenant_of_a_hardened_database_learns_what_it_may_read_elsewhere() {
    let (_postgres, _office, _admin, mut client) = tenant("schema");
    let hidden = sight(&mut client);
    assert!(!hidden.views);
    let schema = client.value("select current_user");
    client.exec(&format!("set search_path = {schema}"));
    client.exec(
        "create table t (id int); create unlogged table fast (id int); create sequence numbers",
    );
    client
        .exec("create function loud() returns bigint language sql volatile as 'select 1::bigint'");
    client.exec("create view v as select id from t; create view fast_view as select id from fast");
    client.exec("create table guarded (id int); create policy p on guarded using (loud() > 0)");
    client.exec("create domain odd as int check (loud() > value)");
    let catalogue = catalogue_of(&mut client, 1, Reach::Schemas, hidden);
    for (expected, text) in [
        (
            "read",
            "select id from t where id = 1 and now() > '2020-01-01'",
        ),
        ("read", "select table_name from information_schema.tables"),
        ("read", "select indexname from pg_indexes"),
        ("relation", "select * from guarded"),
        ("relation", "select * from fast"),
        ("relation", "select last_value from numbers"),
        // What is in it isn't seen.
        ("relation", "select * from v"),
        ("relation", "select * from pg_stat_activity"),
        ("type", "select 1::odd"),
        ("untrusted", "select loud()"),
        ("volatile", "select nextval('numbers')"),
    ] {
        assert_eq!(reason(text, &catalogue), expected, "{text}");
    }
}

#[test]
fn a_tenant_of_the_row_tier_may_read_its_rows_elsewhere() {
    let (_postgres, _office, mut admin, mut client) = tenant("row");
    let hidden = sight(&mut client);
    assert!(!hidden.views);
    admin.exec("create function ctl.odd() returns int language sql volatile as 'select 1'");
    admin.exec("create view ctl.odd_canary as select id, ctl.odd() as n from data.canary");
    let builtins = builtins(&mut client);
    let mut catalogue = |trusted: &[&str], generation| {
        let question = catalogue_sql(&builtins, Reach::Schemas, hidden, trusted);
        let rows = frames::rows(&client.exec(&question));
        Catalogue::new(generation, builtins.clone(), facts(&rows)).unwrap()
    };
    let canary = "select id, secret from ctl.canary where id = 1";
    assert_eq!(reason(canary, &catalogue(&[], 1)), "relation");
    let trusting = catalogue(&["ctl"], 2);
    assert_eq!(reason(canary, &trusting), "read");
    assert_eq!(
        reason("select n from ctl.odd_canary", &trusting),
        "relation"
    );
}

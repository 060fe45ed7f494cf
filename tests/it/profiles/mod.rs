//! What each hardening profile shows of what other tenants wrote, what it tells about that, and
//! what a tenant can still do.

use super::{
    harness::{Client, Postgres},
    places::{managed, operator, place, superuser, turn, writer},
};
use pgusher::{
    provisioning::{
        Admin, Hole, Place, Profile, harden_cluster, make, prepare_database, unmake, verify,
        verify_cluster,
    },
    tenant::Tier,
};
use std::{collections::BTreeSet, sync::OnceLock, time::Duration};
use tokio::sync::{Mutex, MutexGuard};

const FURNISH: &str = include_str!("furnish.sql");
const SPY: &str = include_str!("spy.sql");
const WORK: &str = include_str!("work.sql");

/// A word in a text, in a tree's constant and as bytes; and a number.
const CANARY: &str = "canary|99 97 110 97 114 121|63616e617279|7202413";

/// What `compatible` shows beyond [`STRICT`].
const COMPATIBLE: &[&str] = &[
    "pg_aggregate.agginitval",
    "pg_aggregate.aggminitval",
    "pg_attribute.attmissingval",
    "pg_get_function_arg_default(oid,integer)",
    "pg_get_function_sqlbody(oid)",
    "pg_get_functiondef(oid)",
    "pg_get_ruledef(oid)",
    "pg_get_ruledef(oid,boolean)",
    "pg_get_triggerdef(oid)",
    "pg_get_triggerdef(oid,boolean)",
    "pg_get_viewdef(oid)",
    "pg_get_viewdef(oid,boolean)",
    "pg_get_viewdef(oid,integer)",
    "pg_matviews.definition",
    "pg_policies.qual",
    "pg_policies.with_check",
    "pg_proc.proargdefaults",
    "pg_proc.proconfig",
    "pg_proc.prosqlbody",
    "pg_proc.prosrc",
    "pg_rewrite.ev_action",
    "pg_rules.definition",
    "pg_trigger.tgargs",
    "pg_trigger.tgqual",
    "pg_views.definition",
];

/// What `strict` shows; `sealed` shows nothing.
const STRICT: &[&str] = &[
    "col_description(oid,integer)",
    "information_schema.domains.domain_default",
    "obj_description(oid)",
    "obj_description(oid,name)",
    "pg_attrdef.adbin",
    "pg_attribute.attoptions",
    "pg_class.reloptions",
    "pg_class.relpartbound",
    "pg_constraint.conbin",
    "pg_description.description",
    "pg_get_constraintdef(oid)",
    "pg_get_constraintdef(oid,boolean)",
    "pg_get_function_arguments(oid)",
    "pg_get_indexdef(oid)",
    "pg_get_indexdef(oid,integer,boolean)",
    "pg_get_partition_constraintdef(oid)",
    "pg_get_partkeydef(oid)",
    "pg_get_statisticsobjdef(oid)",
    "pg_get_statisticsobjdef_columns(oid)",
    "pg_get_statisticsobjdef_expressions(oid)",
    "pg_index.indexprs",
    "pg_index.indpred",
    "pg_indexes.indexdef",
    "pg_partitioned_table.partexprs",
    "pg_policy.polqual",
    "pg_policy.polwithcheck",
    "pg_sequence.seqmax",
    "pg_sequence.seqstart",
    "pg_statistic_ext.stxexprs",
    "pg_type.typdefault",
    "pg_type.typdefaultbin",
];

/// Texts in PostgreSQL's tables and views that `sealed` leaves open: names, what is one's own, what
/// is the operator's, and what rows are shown of only to whom the table is open.
const OPEN_COLUMNS: &[&str] = &[
    "pg_collation.collcollate",
    "pg_collation.collctype",
    "pg_collation.collversion",
    "pg_cursors.name",
    "pg_cursors.statement",
    "pg_database.datcollate",
    "pg_database.datcollversion",
    "pg_database.datctype",
    "pg_database.daticulocale",
    "pg_database.daticurules",
    "pg_database.datlocale",
    "pg_event_trigger.evttags",
    "pg_extension.extcondition",
    "pg_extension.extversion",
    "pg_parameter_acl.parname",
    "pg_prepared_statements.name",
    "pg_prepared_statements.statement",
    "pg_proc.proargnames",
    "pg_replication_origin.roname",
    "pg_roles.rolpassword",
    "pg_stats.histogram_bounds",
    "pg_stats.most_common_elems",
    "pg_stats.most_common_vals",
    "pg_stats.range_bounds_histogram",
    "pg_stats.range_length_histogram",
    "pg_subscription.suborigin",
    "pg_subscription.subpublications",
    "pg_subscription.subsynccommit",
    "pg_tablespace.spcoptions",
    "pg_user.passwd",
    "pg_user_mappings.umoptions",
];

/// Functions that say a text of an object and stay open: they say names, or fail without a column
/// that is closed, or ask for a privilege on the object.
const OPEN_FUNCTIONS: &[&str] = &[
    "col_description",
    "format_type",
    "obj_description",
    "pg_collation_actual_version",
    "pg_database_collation_actual_version",
    "pg_describe_object",
    "pg_get_function_identity_arguments",
    "pg_get_function_result",
    "pg_get_sequence_data",
    "pg_identify_object",
    "pg_identify_object_as_address",
    "pg_indexam_progress_phasename",
    "pg_partition_ancestors",
    "pg_partition_tree",
    "pg_sequence_parameters",
    "pg_tablespace_location",
    "shobj_description",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "table_to_xmlschema",
    "ts_debug",
    "ts_headline",
    "ts_lexize",
    "ts_parse",
    "ts_token_type",
];

/// One cluster for this module.
fn cluster() -> &'static Postgres {
    static CLUSTER: OnceLock<Postgres> = OnceLock::new();
    CLUSTER.get_or_init(Postgres::start)
}

/// Each test has the cluster for itself: verification looks at all of it.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn named(holes: &[Hole]) -> BTreeSet<String> {
    holes.iter().map(|hole| hole.name.clone()).collect()
}

/// A place of a tier, in a database of the test's own where it is shared.
fn place_in(database: &str, tier: Tier) -> Place {
    let place = place(tier);
    match tier {
        Tier::Database => place,
        Tier::Schema | Tier::Row => Place {
            database: database.into(),
            ..place
        },
    }
}

fn session(place: &Place) -> Client {
    writer(cluster(), place).patience(Duration::from_mins(3))
}

async fn made(admin: &Admin, profile: Profile, database: &str) -> Place {
    harden_cluster(admin, profile).await.unwrap();
    let place = place_in(database, Tier::Schema);
    make(admin, profile, &place).await.unwrap();
    place
}

#[tokio::test]
async fn another_tenants_texts_are_seen_as_far_as_the_profile_says() {
    let _alone = alone().await;
    let admin = superuser(cluster());
    let victim = made(&admin, Profile::Strict, "seen").await;
    let attacker = made(&admin, Profile::Strict, "seen").await;
    let schema = victim.schema.as_deref().unwrap();
    session(&victim).exec(&FURNISH.replace("{schema}", schema));
    let mut spy = session(&attacker);
    spy.exec(SPY);
    // The planner's statistics of the catalogue have its texts in them.
    cluster().endpoint().admin_of("seen").exec("analyze");
    let sees = |spy: &mut Client| -> BTreeSet<String> {
        let found = spy.values(&format!("select spy('{CANARY}')"));
        let found = found.iter().map(|seen| seen.replacen("pg_catalog.", "", 1));
        found.collect()
    };
    // Not every PostgreSQL has locales with words of one's own, and what is in statistics is by chance.
    let is_sure = |seen: &String| !seen.contains("locale") && !seen.starts_with("pg_stats.");
    let all = [STRICT, COMPATIBLE].concat();
    for (profile, expected) in [
        (Profile::Strict, STRICT),
        (Profile::Sealed, &[]),
        (Profile::Compatible, &all),
        (Profile::Strict, STRICT),
    ] {
        make(&admin, profile, &attacker).await.unwrap();
        let mut shown = sees(&mut spy);
        if profile != Profile::Sealed {
            shown.retain(is_sure);
        }
        assert_eq!(shown, set(expected), "{profile:?}");
    }
    for place in [victim, attacker] {
        unmake(&admin, &place).await.unwrap();
    }
}

#[tokio::test]
async fn every_text_of_the_catalogue_is_decided_upon() {
    let _alone = alone().await;
    let admin = superuser(cluster());
    let place = made(&admin, Profile::Sealed, "decided").await;
    let mut server = cluster().endpoint().admin_of("decided");
    let columns = server.values(
        "select c.relname || '.' || a.attname from pg_class c
         join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         where c.relnamespace = 'pg_catalog'::regnamespace
           and a.atttypid = any ('{text,text[],pg_node_tree,anyarray,bytea,json,jsonb,xml}'::regtype[])
           and has_column_privilege('public', c.oid, a.attnum, 'select')
           -- What the server says of itself, and views that call what is closed.
           and c.relname !~ '^pg_(stat|statio)_|^pg_(settings|wait_events|timezone|available_extension)'",
    );
    let open: BTreeSet<String> = columns.into_iter().collect();
    let decided = set(OPEN_COLUMNS);
    let new: Vec<_> = open.difference(&decided).collect();
    assert!(new.is_empty(), "{new:?}");
    let functions = server.values(
        "select distinct proname from pg_proc
         where pronamespace = 'pg_catalog'::regnamespace and has_function_privilege('public', oid, 'execute')
           and (proretset or prorettype = any ('{text,text[],record,pg_node_tree,bytea,json,jsonb,xml}'::regtype[]))
           and proargtypes[0] = any ('{oid,regclass,regtype,regproc,regprocedure,regconfig,regdictionary,regnamespace}'::regtype[])
           and proname !~ '^(oid|reg).*send$'",
    );
    let open: BTreeSet<String> = functions.into_iter().collect();
    let decided = set(OPEN_FUNCTIONS);
    let new: Vec<_> = open.difference(&decided).collect();
    assert!(new.is_empty(), "{new:?}");
    unmake(&admin, &place).await.unwrap();
}

#[tokio::test]
async fn what_is_open_is_told_exactly() {
    let _alone = alone().await;
    let admin = superuser(cluster());
    // The tests' server lets prepared transactions be, and has a database for everybody.
    let always = ["database_access", "prepared_transactions"];
    let texts = ["comments", "object_texts"];
    let bodies = ["added_values", "definitions", "row_counts"];
    for tier in [Tier::Database, Tier::Schema, Tier::Row] {
        let place = place_in(&format!("told {tier}"), tier);
        for profile in [
            Profile::Sealed,
            Profile::Compatible,
            Profile::Strict,
            Profile::Sealed,
        ] {
            let mut expected = set(&always);
            if profile == Profile::Compatible {
                expected.extend(set(&["role_settings"]));
            }
            if tier != Tier::Database {
                expected.extend(set(&["object_names"]));
                if profile != Profile::Sealed {
                    expected.extend(set(&texts));
                }
                if profile == Profile::Compatible {
                    expected.extend(set(&bodies));
                }
            }
            if tier == Tier::Row {
                expected.extend(set(&["view_locks"]));
            }
            harden_cluster(&admin, profile).await.unwrap();
            let holes = make(&admin, profile, &place).await.unwrap();
            assert_eq!(named(&holes), expected, "{tier} {profile:?}");
            let report = verify(&admin, profile, &place).await.unwrap();
            let open: Vec<_> = report.open().map(ToString::to_string).collect();
            assert!(report.holds(), "{tier} {profile:?}: {open:?}");
            assert_eq!(named(&report.holes), expected, "{tier} {profile:?}");
        }
        unmake(&admin, &place).await.unwrap();
    }
    let report = verify_cluster(&admin, Profile::Sealed).await.unwrap();
    let open: Vec<_> = report.open().map(ToString::to_string).collect();
    assert!(report.holds(), "{open:?}");
    assert!(named(&report.holes).contains("object_names"));
    for hole in texts {
        assert!(!named(&report.holes).contains(hole), "{hole}");
    }
}

#[tokio::test]
async fn a_seal_that_is_broken_is_told_and_mended() {
    let _alone = alone().await;
    let admin = superuser(cluster());
    let place = made(&admin, Profile::Sealed, "broken").await;
    let mut server = cluster().endpoint().admin_of("broken");
    let sound = named(&make(&admin, Profile::Sealed, &place).await.unwrap());
    for (grant, hole, check) in [
        (
            "select on pg_attrdef",
            "object_texts",
            Some("default_texts"),
        ),
        (
            "execute on function pg_get_constraintdef(oid)",
            "object_texts",
            Some("check_texts"),
        ),
        ("select (indpred) on pg_index", "object_texts", None),
        (
            "select (domain_default) on information_schema.domains",
            "object_texts",
            None,
        ),
        (
            "execute on function record_in(cstring, oid, integer)",
            "object_texts",
            None,
        ),
        ("select (description) on pg_description", "comments", None),
        ("select on pg_description", "comments", Some("comments")),
        (
            "select (attmissingval) on pg_attribute",
            "added_values",
            Some("added_values"),
        ),
    ] {
        server.exec(&format!("grant {grant} to public"));
        let report = verify(&admin, Profile::Sealed, &place).await.unwrap();
        // What was opened by hand is no known hole.
        assert_eq!(named(&report.holes), sound, "{grant}");
        let open: Vec<_> = report.open().collect();
        let hardening = open.iter().find(|found| found.name == "hardening");
        let told = hardening.unwrap_or_else(|| panic!("{grant}: {open:?}"));
        assert!(told.to_string().contains(hole), "{grant}: {told}");
        if let Some(check) = check {
            let is_found = open.iter().any(|found| found.name == check);
            assert!(is_found, "{grant}: {open:?}");
        }
        let mended = prepare_database(&admin, Profile::Sealed, "broken", Tier::Schema)
            .await
            .unwrap();
        assert_eq!(named(&mended), sound, "{grant}");
    }
    unmake(&admin, &place).await.unwrap();
}

#[tokio::test]
async fn an_admin_without_superuser_tells_that_it_seals_nothing() {
    let _turn = turn().await;
    let (admin, place) = (operator(managed()), place(Tier::Schema));
    harden_cluster(&admin, Profile::Sealed).await.unwrap();
    let sealed = named(&make(&admin, Profile::Sealed, &place).await.unwrap());
    let strict = named(&make(&admin, Profile::Strict, &place).await.unwrap());
    assert_eq!(sealed, strict);
    for hole in ["object_names", "object_texts", "comments", "added_values"] {
        assert!(sealed.contains(hole), "{hole}");
    }
    let report = verify(&admin, Profile::Sealed, &place).await.unwrap();
    assert!(report.holds(), "{:?}", report.open().collect::<Vec<_>>());
    assert_eq!(named(&report.holes), sealed);
    unmake(&admin, &place).await.unwrap();
}

#[tokio::test]
async fn an_application_works_in_a_sealed_database() {
    let _alone = alone().await;
    let admin = superuser(cluster());
    let place = made(&admin, Profile::Sealed, "work").await;
    let mut session = session(&place);
    for statement in WORK.lines().filter(|line| !line.starts_with("--")) {
        session.exec(statement);
    }
    let users =
        session.values("select concat_ws(' ', id, email, n, tags, flag) from users order by id");
    assert_eq!(users, ["2 b 7 {x,y} yes", "3 c 9 {x,y} yes"]);
    let orders = session.values("select concat_ws(' ', id, who, amount) from orders order by id");
    assert_eq!(orders, ["2 2 1.50", "3 3 1.50", "50 2 1.50"]);
    let parts = session.values("select tableoid::regclass || ' ' || v from parts order by d");
    assert_eq!(parts, ["parts_one v", "parts_rest v"]);
    for (statement, code) in [
        ("insert into users (email, n) values ('d', -1)", "23514"),
        (
            "insert into users (email, flag) values ('d', 'no')",
            "23514",
        ),
        ("insert into users (email) values ('b')", "23505"),
        ("insert into orders (who) values (99)", "23503"),
        ("insert into odd (e) values ('no address')", "23514"),
        // What does not work, and the README says so: reflection, of one's own as well.
        (
            "select pg_get_expr(adbin, adrelid) from pg_attrdef",
            "42501",
        ),
        (
            "select pg_get_constraintdef(oid) from pg_constraint",
            "42501",
        ),
        ("select pg_get_indexdef('users_some'::regclass)", "42501"),
        ("select indexdef from pg_indexes", "42501"),
        ("select obj_description('users'::regclass)", "42501"),
        (
            "select domain_default from information_schema.domains",
            "42501",
        ),
    ] {
        assert_eq!(session.fails(statement).code(), code, "{statement}");
    }
    unmake(&admin, &place).await.unwrap();
}

#[tokio::test]
async fn a_guess_at_another_tenants_domain_is_refused_where_the_database_is_sealed() {
    let _alone = alone().await;
    let admin = superuser(cluster());
    let victim = made(&admin, Profile::Strict, "guess").await;
    let attacker = made(&admin, Profile::Strict, "guess").await;
    session(&victim)
        .exec("create domain secret as text check (value <> 'right'); create table t (s secret)");
    let domain = "(select oid from pg_type where typname = 'secret')";
    let row = "(select reltype from pg_class where relname = 't')";
    let guesses = [
        format!("select domain_in('right', {domain}, -1)"),
        format!("select array_in('{{right}}', {domain}, -1)"),
        format!("select record_in('(right)', {row}, -1)"),
    ];
    let mut session = session(&attacker);
    for (profile, code) in [(Profile::Strict, "23514"), (Profile::Sealed, "42501")] {
        make(&admin, profile, &attacker).await.unwrap();
        for guess in &guesses {
            assert_eq!(session.fails(guess).code(), code, "{profile:?}: {guess}");
        }
    }
    for place in [victim, attacker] {
        unmake(&admin, &place).await.unwrap();
    }
}

//! Whole texts, against a catalogue such as PostgreSQL gives.

use super::*;
use proptest::prelude::*;
use std::sync::Arc;

#[path = "../../tests/it/routing/cases.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests against PostgreSQL"
)]
mod cases;

/// Functions of PostgreSQL's own that the cases call.
const FREE: &str = "abs age array_agg clock_timestamp concat convert_from count current_database \
    current_schema current_setting date_trunc encode extract first_value format format_type \
    gen_random_uuid generate_series has_table_privilege hashtext initcap int4range json_build_array json_object \
    jsonb_agg jsonb_build_object jsonb_each jsonb_to_record jsonb_to_recordset lag left length lower \
    make_date max md5 normalize now ntile numeric obj_description overlay percentile_cont \
    pg_client_encoding pg_column_size pg_get_expr pg_get_viewdef pg_sleep pg_typeof pi position power \
    quote_ident random repeat round row_number row_to_json similar_to_escape statement_timestamp \
    string_agg substring sum timeofday timezone to_char to_regclass to_timestamp to_tsquery \
    to_tsvector transaction_timestamp btrim unnest upper version width_bucket xmlexists concat_ws";

const BOUND: &str = "nextval currval lastval setval set_config pg_advisory_lock \
    pg_try_advisory_xact_lock_shared pg_advisory_unlock_all txid_current pg_current_xact_id \
    pg_current_snapshot pg_export_snapshot pg_notify lo_create lo_get setseed pg_is_in_recovery \
    pg_current_wal_lsn pg_last_wal_replay_lsn inet_server_addr inet_server_port pg_backend_pid \
    pg_postmaster_start_time pg_cancel_backend pg_terminate_backend pg_stat_get_db_xact_commit \
    pg_listening_channels query_to_xml table_to_xml pg_switch_wal pg_reload_conf \
    pg_read_file";

const OPERATORS: &str =
    "= <> < <= > >= + - * / % ^ || ~ !~ ~* !~* ~~ !~~ ~~* !~~* -> ->> #> @> ? @@ && >>";

const RELATIONS: &str = "pg_stat_activity pg_locks pg_settings pg_stat_user_tables \
    pg_prepared_statements pg_replication_slots";

fn rows(kind: &str, schema: &str, names: &str, is_free: &str) -> Vec<[String; 4]> {
    let row = |name: &str| [kind, schema, name, is_free].map(str::to_owned);
    names
        .split(' ')
        .filter(|name| !name.is_empty())
        .map(row)
        .collect()
}

fn facts(rows: &[[String; 4]]) -> impl Iterator<Item = Result<Fact<'_>, CatalogueError>> {
    rows.iter()
        .map(|row| Fact::from_columns([0, 1, 2, 3].map(|at| Some(row[at].as_bytes()))))
}

fn builtins() -> Arc<Builtins> {
    let rows = [
        rows("f", "pg_catalog", FREE, "t"),
        rows("f", "pg_catalog", BOUND, "f"),
        rows("o", "pg_catalog", OPERATORS, "t"),
        rows("r", "pg_catalog", RELATIONS, "f"),
    ]
    .concat();
    Arc::new(Builtins::new(facts(&rows)).unwrap())
}

/// As of `cases::DEFINITIONS`, with `trusted` trusted.
fn own() -> Vec<[String; 4]> {
    [
        rows("f", "public", "loud still pair initcap shout loud_check loud_compare total", "f"),
        rows("f", "trusted", "calm pair add", "t"),
        rows("a", "public", "initcap shout", "f"),
        rows("o", "public", "===", "f"),
        rows("o", "public", "<+>", "t"),
        rows("t", "public", "odd _odd odder _odder holder _holder", "f"),
        rows(
            "r",
            "public",
            "fast parts parts_1 numbers loud_view own_loud_view nested_view server_view fast_view far guarded",
            "f",
        ),
    ]
    .concat()
}

fn catalogue_of(generation: u64, own: &[[String; 4]]) -> Catalogue {
    Catalogue::new(generation, builtins(), facts(own)).unwrap()
}

fn reason(text: &str) -> &'static str {
    let verdict = Intent::of(text.as_bytes()).verdict(&catalogue_of(1, &own()));
    verdict.reason.as_str()
}

#[test]
fn reads_may_go_to_a_replica() {
    let catalogue = catalogue_of(1, &own());
    assert!(cases::READS.len() > 130);
    for text in cases::READS {
        let verdict = Intent::of(text.as_bytes()).verdict(&catalogue);
        assert_eq!(
            (verdict.reason, verdict.target),
            (Reason::Read, Target::Replica),
            "{text}"
        );
        assert_eq!(verdict.transaction, Transaction::None, "{text}");
    }
}

#[test]
fn everything_else_goes_to_the_primary_for_its_own_reason() {
    let catalogue = catalogue_of(1, &own());
    assert!(cases::PRIMARY.len() > 200);
    for (reason, text) in cases::PRIMARY {
        let verdict = Intent::of(text.as_bytes()).verdict(&catalogue);
        assert_eq!(
            (verdict.reason.as_str(), verdict.target),
            (*reason, Target::Primary),
            "{text}"
        );
    }
}

#[test]
fn a_text_that_a_client_ends_with_a_nul_is_the_same() {
    let catalogue = catalogue_of(1, &own());
    for text in cases::READS
        .iter()
        .chain(cases::PRIMARY.iter().map(|(_, text)| text))
    {
        let ended = format!("{text}\0");
        let verdict = |text: &str| Intent::of(text.as_bytes()).verdict(&catalogue);
        assert_eq!(verdict(&ended), verdict(text), "{text}");
    }
    assert_eq!(reason("select 1\0; delete from t"), "syntax");
}

#[test]
fn no_nesting_ends_the_process() {
    let read = |text: &str| Intent::of(text.as_bytes()).verdict(&catalogue_of(1, &own()));
    let small_stack = std::thread::Builder::new().stack_size(256 * 1024);
    let ran = small_stack.spawn(move || {
        let sum = format!("select 1{}", "+1".repeat(6 * 1024));
        assert_eq!(read(&sum).reason, Reason::Read);
        let bound = format!("select nextval('numbers'){}", "+1".repeat(6 * 1024));
        assert_eq!(read(&bound).reason, Reason::Volatile);
        let longest = format!("select 1{}", "+1".repeat(16 * 1024 - 10));
        assert_eq!(read(&longest).reason, Reason::Read);
        let all_and = format!("select true{}", " and true".repeat(3000));
        assert_eq!(read(&all_and).reason, Reason::Read);
        let nots = format!("select {} true", "not ".repeat(2000));
        assert_eq!(read(&nots).reason, Reason::Read);
        let nested = |open: &str, middle: &str, close: &str, depth: usize| {
            let text = format!("{}{middle}{}", open.repeat(depth), close.repeat(depth));
            read(&text).reason
        };
        for depth in [100, 1000] {
            assert_eq!(nested("select (", "select 1", ")", depth), Reason::Read);
            assert_eq!(nested("(", "select 1", ")", depth), Reason::Read);
        }
        // Deeper than the grammar goes.
        for (open, middle, close) in [
            ("(", "select 1", ")"),
            ("select (", "select 1", ")"),
            ("select * from (", "select 1", ") x"),
            ("select array[", "1", "]"),
            ("select case when true then ", "1", " end"),
            ("with a as (", "select 1", ") select 1"),
        ] {
            for depth in [2000, 16 * 1024, 100_000] {
                let reason = nested(open, middle, close, depth);
                let is_known = matches!(reason, Reason::Syntax | Reason::TooLong | Reason::Read);
                assert!(is_known, "{open} {reason:?}");
            }
        }
        let unions = format!("select 1{}", " union select 1".repeat(2000));
        assert_eq!(read(&unions).reason, Reason::Read);
    });
    ran.unwrap().join().unwrap();
}

#[test]
fn long_texts_are_not_looked_at() {
    let verdict = |text: &str| Intent::of(text.as_bytes()).verdict(&catalogue_of(1, &own()));
    let huge = format!("select '{}'", "x".repeat(10 * 1024 * 1024));
    assert_eq!(verdict(&huge).reason, Reason::TooLong);
    assert_eq!(verdict(&huge).transaction, Transaction::Unknown);
    let huge = format!("insert into t values ('{}')", "x".repeat(10 * 1024 * 1024));
    assert_eq!(verdict(&huge).reason, Reason::Write);
    let comment = format!("{}select 1", "-- x\n".repeat(1024 * 1024));
    assert_eq!(verdict(&comment).reason, Reason::TooLong);
    for nothing in ["(", ";", " ", "/* "] {
        let late = format!("{}insert", nothing.repeat(2 * 1024 * 1024));
        assert_eq!(verdict(&late).reason, Reason::TooLong, "{nothing}");
    }
    let exact = format!("select '{}'", "x".repeat(TEXT_BYTES_MAX - 9));
    assert_eq!(exact.len(), TEXT_BYTES_MAX);
    assert_eq!(verdict(&exact).reason, Reason::Read);
    assert_eq!(verdict(&format!("{exact} ")).reason, Reason::TooLong);
    let names: Vec<_> = (0..600).map(|n| format!("a.c{n}")).collect();
    let many = format!("select {} from t a", names.join(","));
    assert_eq!(verdict(&many).reason, Reason::TooLong);
}

#[test]
fn what_is_no_utf_8_goes_to_the_primary() {
    let catalogue = catalogue_of(1, &own());
    let verdict = Intent::of(b"select '\xff'").verdict(&catalogue);
    assert_eq!(verdict.reason, Reason::Encoding);
    let verdict = Intent::of(b"insert into t values ('\xff')").verdict(&catalogue);
    assert_eq!(verdict.reason, Reason::Write);
}

#[test]
fn names_are_cut_as_postgresql_cuts_them() {
    let long = "é".repeat(40);
    let kept = "é".repeat(31);
    let catalogue = catalogue_of(1, &rows("r", "public", &kept, "f"));
    let text = format!("select * from {long}");
    let verdict = Intent::of(text.as_bytes()).verdict(&catalogue);
    assert_eq!(verdict.reason, Reason::Relation);
}

#[test]
fn nothing_is_read_elsewhere_before_the_catalogue_is_known() {
    let intent = Intent::of(b"select 1");
    assert_eq!(
        intent.verdict(&Catalogue::unknown()).reason,
        Reason::NoCatalogue
    );
    assert_eq!(intent.verdict(&catalogue_of(1, &[])).reason, Reason::Read);
    assert_eq!(
        intent.verdict(&Catalogue::unknown()).target,
        Target::Primary
    );
}

#[test]
fn a_verdict_is_made_again_for_each_generation() {
    let intent = Intent::of(b"select calm()");
    let with = |generation, is_free| {
        let own = rows("f", "public", "calm", is_free);
        intent.verdict(&catalogue_of(generation, &own)).reason
    };
    assert_eq!(with(1, "t"), Reason::Read);
    assert_eq!(with(1, "f"), Reason::Read, "it is kept");
    assert_eq!(with(2, "f"), Reason::Untrusted);
    assert_eq!(with(3, "t"), Reason::Read);
    assert_eq!(
        intent.verdict(&catalogue_of(4, &[])).reason,
        Reason::UnknownFunction
    );
}

#[test]
fn the_worst_of_several_functions_counts() {
    let own = [rows("f", "a", "now", "t"), rows("f", "b", "now", "f")].concat();
    let catalogue = catalogue_of(1, &own);
    for (text, expected) in [
        ("select now()", Reason::Untrusted),
        ("select pg_catalog.now()", Reason::Read),
        ("select a.now()", Reason::Read),
        ("select b.now()", Reason::Untrusted),
        ("select x.a.now()", Reason::Read),
        ("select c.now()", Reason::UnknownFunction),
    ] {
        let verdict = Intent::of(text.as_bytes()).verdict(&catalogue);
        assert_eq!(verdict.reason, expected, "{text}");
    }
}

#[test]
fn a_cast_with_a_function_binds_every_read() {
    let catalogue = catalogue_of(1, &[["c", "", "", "f"].map(str::to_owned)]);
    assert_eq!(
        Intent::of(b"select 1").verdict(&catalogue).reason,
        Reason::Type
    );
}

#[test]
fn grammar_of_a_later_postgresql_may_be_a_function_of_an_earlier_one() {
    let catalogue = catalogue_of(1, &rows("f", "public", "json_array", "f"));
    let verdict = Intent::of(b"select json_array(1)").verdict(&catalogue);
    assert_eq!(verdict.reason, Reason::Untrusted);
}

#[test]
fn an_operator_of_the_tenants_counts_wherever_the_grammar_means_it() {
    let catalogue = catalogue_of(1, &rows("o", "public", "=", "f"));
    for text in [
        "select 1 = 2",
        "select 1 in (1)",
        "select 1 in (select 1)",
        "select nullif(1, 2)",
        "select 1 is distinct from 2",
        "select case 1 when 2 then 3 end",
        "select 1 from t join u using (id)",
        "select 1 from t natural join u",
        "select row(1) = row(2)",
    ] {
        let verdict = Intent::of(text.as_bytes()).verdict(&catalogue);
        assert_eq!(verdict.reason, Reason::Operator, "{text}");
    }
    let catalogue = catalogue_of(1, &rows("o", "public", ">=", "f"));
    let verdict = Intent::of(b"select 1 between 2 and 3").verdict(&catalogue);
    assert_eq!(verdict.reason, Reason::Operator);
}

#[test]
fn rows_that_are_none_make_no_catalogue() {
    let of = |row: [Option<&'static [u8]>; 4]| Fact::from_columns(row).err();
    assert_eq!(of([Some(b"f"), Some(b"a"), Some(b"b"), Some(b"t")]), None);
    for row in [
        [None, Some(&b"a"[..]), Some(&b"b"[..]), Some(&b"t"[..])],
        [Some(&b"x"[..]), Some(b"a"), Some(b"b"), Some(b"t")],
        [Some(&b"f"[..]), Some(b"\xff"), Some(b"b"), Some(b"t")],
    ] {
        assert_eq!(of(row), Some(CatalogueError::Row));
    }
    let many = (0..=FACTS_MAX)
        .map(|_| Fact::from_columns([Some(b"f"), Some(b"a"), Some(b"b"), Some(b"t")]));
    let made = Catalogue::new(1, builtins(), many);
    assert_eq!(made.err(), Some(CatalogueError::TooMany));
}

#[test]
fn texts_that_come_again_are_not_read_again() {
    let intents = Intents::new();
    let catalogue = catalogue_of(1, &own());
    for (reason, text) in cases::READS
        .iter()
        .map(|text| ("read", *text))
        .chain(cases::PRIMARY.iter().copied())
    {
        for _ in 0..2 {
            let verdict = intents.verdict(text.as_bytes(), &catalogue);
            assert_eq!(verdict.reason.as_str(), reason, "{text}");
        }
        let intent = intents.intent(text.as_bytes());
        assert_eq!(intent.verdict(&catalogue).reason.as_str(), reason, "{text}");
    }
    let first = intents.intent(b"select 1");
    assert!(Arc::ptr_eq(&first, &intents.intent(b"select 1\0")));
    assert!(!Arc::ptr_eq(&first, &intents.intent(b"select 2")));
}

#[test]
fn the_cache_is_bounded() {
    let intents = Intents::new();
    let catalogue = catalogue_of(1, &own());
    for n in 0..3000 {
        let text = format!("select {n}, '{}'", "x".repeat(10_000));
        intents.verdict(text.as_bytes(), &catalogue);
    }
    let kept = intents.len();
    assert!(kept > 0 && kept <= 256, "{kept} texts of 10 kB");
    intents.verdict(b"insert into t values (1)", &catalogue);
    assert_eq!(intents.len(), kept);
    assert!(!intents.is_empty());
}

/// Words that make statements likely.
fn any_statement() -> impl Strategy<Value = String> {
    let words = vec![
        "select",
        "with",
        "a",
        "as",
        "(",
        ")",
        "insert into t",
        "values",
        "from",
        "t",
        "where",
        "1",
        "=",
        "$1",
        "'x'",
        "'\\'",
        "E'\\''",
        "for update",
        "into",
        "union",
        ";",
        "nextval('s')",
        ",",
        "explain",
        "analyze",
        "::int",
        "[1]",
        ".b",
        "case",
        "when",
        "then",
        "end",
        "in",
        "any",
        "order by",
        "limit",
        "over",
        "U&\"\\0061\"",
        "$$",
        "/*",
        "*/",
        "--",
        "\n",
        "\0",
        "é",
        "begin",
        "read only",
        "set",
        "transaction",
        "commit",
        "and chain",
        "json_array(",
        "row(",
    ];
    let words = proptest::collection::vec(proptest::sample::select(words), 0..25);
    words.prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn any_bytes_get_a_verdict(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let verdict = Intent::of(&bytes).verdict(&catalogue_of(1, &own()));
        prop_assert_eq!(verdict.target == Target::Replica, verdict.reason == Reason::Read);
    }

    #[test]
    fn any_words_get_a_verdict(text in any_statement()) {
        let catalogue = catalogue_of(1, &own());
        let verdict = Intent::of(text.as_bytes()).verdict(&catalogue);
        if verdict.reason == Reason::Read {
            let bound = ["nextval", "insert", "for update", "begin", "commit"];
            let shown = crate::sql::tokens(text.as_bytes())
                .significant()
                .filter(|token| !token.kind.is_string())
                .map(|token| String::from_utf8_lossy(token.of(text.as_bytes())).into_owned());
            for word in shown {
                // `for update` may only stand as words of a locking clause, `begin` as a name.
                prop_assert!(!bound[..3].contains(&word.as_str()), "{}", text);
            }
        }
    }

    #[test]
    fn a_cut_statement_gets_a_verdict(which in any::<proptest::sample::Index>(), at in any::<proptest::sample::Index>()) {
        let text = cases::READS[which.index(cases::READS.len())].as_bytes();
        let cut = &text[..at.index(text.len() + 1)];
        Intent::of(cut).verdict(&catalogue_of(1, &own()));
    }
}

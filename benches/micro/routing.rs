//! Where a statement may run.

use divan::{Bencher, black_box};
use pgusher::routing::{Builtins, Catalogue, Fact, Intent, Intents, Reason};
use std::{fmt::Write, sync::Arc};

const POINT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";

/// As an ORM writes it, 1.9 KB.
fn orm() -> String {
    let columns = |table: &str, from: u32| {
        (from..from + 18).fold(String::new(), |mut all, n| {
            write!(all, "\"{table}\".\"column_{n}\" AS \"t{from}_c{n}\", ").unwrap();
            all
        })
    };
    format!(
        "SELECT {}{}COUNT(*) OVER (PARTITION BY \"customers\".\"id\") AS \"total\" FROM \"orders\" \
         LEFT OUTER JOIN \"customers\" ON \"customers\".\"id\" = \"orders\".\"customer_id\" \
         WHERE (\"orders\".\"state\" IN ($1, $2, $3) OR \"orders\".\"closed_at\" IS NULL) \
         AND LOWER(\"customers\".\"name\") LIKE $4 AND \"orders\".\"created_at\" BETWEEN $5 AND $6 \
         ORDER BY \"orders\".\"created_at\" DESC, \"orders\".\"id\" ASC LIMIT 50 OFFSET $7",
        columns("orders", 0),
        columns("customers", 18),
    )
}

fn catalogue() -> Catalogue {
    let fact = |kind: &'static str, name: &'static str| {
        Fact::from_columns([kind, "pg_catalog", name, "t"].map(|text| Some(text.as_bytes())))
    };
    let functions = ["count", "lower"].map(|name| fact("f", name));
    let operators = ["=", "~~", "<", "<=", ">", ">="].map(|name| fact("o", name));
    let builtins = Builtins::new(functions.into_iter().chain(operators)).unwrap();
    Catalogue::new(1, Arc::new(builtins), []).unwrap()
}

/// A first word that says all.
#[divan::bench(args = ["BEGIN", "INSERT INTO t (a, b, c) VALUES ($1, $2, $3) RETURNING id"])]
fn first_word(bencher: Bencher<'_, '_>, text: &str) {
    let (intents, catalogue) = (Intents::new(), catalogue());
    bencher.bench_local(|| intents.verdict(black_box(text.as_bytes()), &catalogue));
}

fn known(bencher: Bencher<'_, '_>, text: &str) {
    let (intents, catalogue) = (Intents::new(), catalogue());
    let verdict = intents.verdict(text.as_bytes(), &catalogue);
    assert_eq!(verdict.reason, Reason::Read);
    bencher.bench_local(|| intents.verdict(black_box(text.as_bytes()), &catalogue));
}

/// A Query that came before.
#[divan::bench]
fn known_point_select(bencher: Bencher<'_, '_>) {
    known(bencher, POINT);
}

/// A Query that came before.
#[divan::bench]
fn known_orm_select(bencher: Bencher<'_, '_>) {
    known(bencher, &orm());
}

/// A Bind of a prepared statement.
#[divan::bench]
fn prepared(bencher: Bencher<'_, '_>) {
    let (intent, catalogue) = (Intent::of(orm().as_bytes()), catalogue());
    bencher.bench_local(|| black_box(&intent).verdict(&catalogue));
}

/// The first time: PostgreSQL's grammar, the walk, the catalogue.
#[divan::bench]
fn new_point_select(bencher: Bencher<'_, '_>) {
    let catalogue = catalogue();
    bencher.bench_local(|| Intent::of(black_box(POINT.as_bytes())).verdict(&catalogue));
}

/// The first time: PostgreSQL's grammar, the walk, the catalogue.
#[divan::bench]
fn new_orm_select(bencher: Bencher<'_, '_>) {
    let (text, catalogue) = (orm(), catalogue());
    bencher.bench_local(|| Intent::of(black_box(text.as_bytes())).verdict(&catalogue));
}

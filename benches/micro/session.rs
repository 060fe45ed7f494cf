//! What a server is known to have: answers outstanding, statements, settings.

use divan::{Bencher, black_box};
use pgusher::{
    upstream::{Expect, Replies, Settings, Statements},
    wire::tag::backend as tag,
};

/// A prepared transaction: what is asked, held against what comes.
#[divan::bench]
fn replies(bencher: Bencher<'_, '_>) {
    let mut replies = Replies::default();
    bencher.bench_local(|| {
        for expect in [Expect::Bind(None), Expect::Execute, Expect::Sync] {
            replies.push(black_box(expect));
        }
        let answers = [
            tag::BIND_COMPLETE,
            tag::DATA_ROW,
            tag::COMMAND_COMPLETE,
            tag::READY,
        ];
        for message in answers {
            black_box(replies.observe(black_box(message)));
        }
        replies.is_empty()
    });
}

/// A statement that another client has prepared before.
#[divan::bench]
fn intern_known(bencher: Bencher<'_, '_>) {
    let statements = Statements::default();
    let held = statements.intern(0, b"select * from t where id = $1\0\0\0", |_| {
        pgusher::upstream::Suspicion::NONE
    });
    bencher.bench_local(|| {
        statements.intern(0, black_box(held.tail()), |_| {
            pgusher::upstream::Suspicion::NONE
        })
    });
}

/// A statement that is new each time; those that nobody holds are swept.
#[divan::bench]
fn intern_new(bencher: Bencher<'_, '_>) {
    let statements = Statements::default();
    let mut number = 0_u64;
    bencher.bench_local(|| {
        number += 1;
        statements.intern(0, black_box(&number.to_be_bytes()), |_| {
            pgusher::upstream::Suspicion::NONE
        })
    });
}

/// From one client's settings to another's, with so many of six that differ.
#[divan::bench(args = [0, 1, 6])]
fn settings_towards(bencher: Bencher<'_, '_>, differing: usize) {
    let names = [
        "application_name",
        "client_encoding",
        "DateStyle",
        "extra_float_digits",
        "search_path",
        "TimeZone",
    ];
    let settings = |is_other: bool| {
        let pairs = names.iter().enumerate().map(|(at, name)| {
            let value = if is_other && at < differing {
                "two"
            } else {
                "one"
            };
            ((*name).into(), value.into())
        });
        Settings::new(pairs)
    };
    let (from, to) = (settings(false), settings(true));
    bencher.bench_local(|| black_box(&from).sql_towards(black_box(&to)));
}

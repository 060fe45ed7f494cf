//! A month's count at its boundaries.

use super::*;
use std::sync::atomic::AtomicU64;

fn at(text: &str) -> SystemTime {
    humantime::parse_rfc3339(text).unwrap()
}

fn terms(transactions: u64) -> Terms {
    Terms {
        transactions_per_month: NonZeroU64::new(transactions),
        ..Terms::default()
    }
}

fn month(transactions: u64, now: SystemTime) -> Month {
    let month = Month::default();
    month.follow(&terms(transactions), now, |_| Monthly::default());
    month
}

fn add(counter: &AtomicU64) {
    Counters::add(counter, 1);
}

/// One transaction, whole.
fn run(month: &Month, counters: &Counters, now: SystemTime) -> Result<usize, Standing> {
    let news = month.take(counters, now)?;
    add(&counters.transactions);
    add(&counters.queries);
    month.charge(counters);
    Ok(news.into_iter().flatten().count())
}

fn used(month: &Month, now: SystemTime) -> u64 {
    month.standings(now)[0].unwrap().used
}

#[test]
fn the_last_one_is_the_last_and_what_was_not_used_is_given_back() {
    let now = at("2026-11-30T23:59:59Z");
    let (month, one, other) = (month(3, now), Counters::default(), Counters::default());
    run(&month, &one, now).unwrap();
    month.take(&one, now).unwrap();
    month.take(&other, now).unwrap();
    let full = month.check(now).unwrap_err();
    assert_eq!((full.used, full.max, full.level()), (3, 3, Level::Hard));
    assert_eq!(full.month.ends(), at("2026-12-01T00:00:00Z"));
    // It has come to nothing.
    month.charge(&other);
    assert_eq!(used(&month, now), 2);
    run(&month, &other, now).unwrap();
    assert!(run(&month, &other, now).is_err());
    month.follow(&terms(4), now, |_| unreachable!());
    run(&month, &other, now).unwrap();
    assert!(run(&month, &other, now).is_err());
}

#[test]
fn a_new_month_begins_with_nothing_and_tells_anew() {
    let before = at("2026-11-30T23:59:59.999Z");
    let (month, session) = (month(5, before), Counters::default());
    let news: Vec<_> = (0..5)
        .map(|_| run(&month, &session, before).unwrap())
        .collect();
    assert_eq!(news, [0, 0, 0, 1, 0]);
    assert!(run(&month, &session, before).is_err());
    assert_eq!(month.untold(before).len(), 2);
    for (standing, level) in month.untold(before) {
        month.told(&standing, level);
    }
    assert!(month.untold(before).is_empty());
    let after = at("2026-12-01T00:00:00Z");
    let news: Vec<_> = (0..5)
        .map(|_| run(&month, &session, after).unwrap())
        .collect();
    assert_eq!(news, [0, 0, 0, 1, 0]);
    assert!(run(&month, &session, after).is_err());
    assert_eq!(month.untold(after).len(), 2);
    // What was read for the month before says nothing of this one.
    let all = Monthly {
        queries: 100,
        transactions: 100,
    };
    month.read(Calendar::of(before), Some(all), after);
    assert_eq!(used(&month, after), 5);
}

#[test]
fn what_is_written_and_read_again_is_counted_once() {
    let now = at("2026-11-22T00:00:00Z");
    let (month, session) = (month(100, now), Counters::default());
    let this = Calendar::of(now);
    let of = |count| Monthly {
        queries: count,
        transactions: count,
    };
    for _ in 0..5 {
        run(&month, &session, now).unwrap();
    }
    month.read(this, Some(of(20)), now);
    assert_eq!(used(&month, now), 25);
    month.written(this, of(3));
    month.read(this, Some(of(23)), now);
    assert_eq!(used(&month, now), 25);
    run(&month, &session, now).unwrap();
    month.written(this, of(3));
    month.read(this, Some(of(36)), now);
    assert_eq!(used(&month, now), 36);
    // It does not answer: the last known counts.
    month.read(this, None, now);
    assert_eq!(used(&month, now), 36);
}

#[test]
fn statements_are_counted_at_the_end_and_pipelines_as_they_were() {
    let now = at("2026-11-22T00:00:00Z");
    let (month, session) = (Month::default(), Counters::default());
    let terms = Terms {
        queries_per_month: NonZeroU64::new(10),
        ..Terms::default()
    };
    month.follow(&terms, now, |_| Monthly::default());
    month.take(&session, now).unwrap();
    Counters::add(&session.queries, 12);
    Counters::add(&session.transactions, 4);
    assert_eq!(month.standings(now)[1].unwrap().used, 1);
    month.charge(&session);
    assert_eq!(month.check(now).unwrap_err().used, 12);
}

#[test]
fn a_quota_that_is_new_begins_with_what_was_used() {
    let now = at("2026-11-22T00:00:00Z");
    let month = Month::default();
    month.follow(&Terms::default(), now, |_| unreachable!());
    let so_far = Monthly {
        queries: 9,
        transactions: 7,
    };
    month.follow(&terms(10), now, |_| so_far);
    assert_eq!(used(&month, now), 7);
    let again = Terms {
        made_at: Some(now),
        ..terms(10)
    };
    month.follow(&again, now, |_| unreachable!());
    assert_eq!(used(&month, now), 0, "another tenant of this name");
}

//! The same messages to PostgreSQL and through the proxy, and the same answers from both.

use super::{Client, Frame, Mode, Neighbour, proxy::pooled};
use std::fmt::Write;

/// A way to PostgreSQL, on which a script is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    PostgresItself,
    SessionMode,
    TransactionMode,
    /// In transaction mode, with someone else on the same servers in between.
    BesideANeighbour,
}

/// Where the session's state may live.
const IN_A_SESSION: [Way; 2] = [Way::PostgresItself, Way::SessionMode];
const ALL: [Way; 4] = [
    Way::PostgresItself,
    Way::SessionMode,
    Way::TransactionMode,
    Way::BesideANeighbour,
];

/// A `RowDescription` without the oids of tables that a test made.
fn described(body: &[u8]) -> String {
    let (count, mut rest) = body.split_at(2);
    let mut shown = format!("T({}", count.escape_ascii());
    while !rest.is_empty() {
        let name_end = rest
            .iter()
            .position(|byte| *byte == 0)
            .expect("a column's name");
        let (column, after) = rest.split_at(name_end + 19);
        let (name, facts) = column.split_at(name_end);
        let table = u32::from_be_bytes(facts[1..5].try_into().unwrap());
        let table = if table < 16384 { table } else { 16384 };
        let (name, facts) = (name.escape_ascii(), facts[5..].escape_ascii());
        write!(shown, " {name} of {table} {facts}").expect("a string takes all");
        rest = after;
    }
    shown + ")"
}

/// What a client sees of an answer: not the place in PostgreSQL's source.
pub fn seen(frames: &[Frame]) -> Vec<String> {
    let show = |frame: &Frame| match frame.tag {
        b'E' | b'N' => format!("{}({:?})", frame.kind(), frame.fields().without_source()),
        b'T' => described(&frame.body),
        _ => format!("{}({})", frame.kind(), frame.body.escape_ascii()),
    };
    frames.iter().map(show).collect()
}

/// Runs a script over each way, in a place of its own, and compares what it returns.
pub fn same_everywhere(script: impl Fn(&mut Client) -> Vec<Frame>) {
    same_on(&ALL, &script);
}

/// As [`same_everywhere`], for what depends on which server it meets: a plan that only one of
/// them has cached.
pub fn same_without_neighbour(script: impl Fn(&mut Client) -> Vec<Frame>) {
    same_on(&ALL[..3], &script);
}

/// As [`same_everywhere`], for what keeps state between transactions.
pub fn same_in_session_mode(script: impl Fn(&mut Client) -> Vec<Frame>) {
    same_on(&IN_A_SESSION, &script);
}

fn same_on(ways: &[Way], script: &dyn Fn(&mut Client) -> Vec<Frame>) {
    let mut expected: Option<Vec<String>> = None;
    for way in ways {
        let answers = answers_on(*way, script);
        match &expected {
            Some(expected) => compare(*way, expected, &answers),
            None => expected = Some(answers),
        }
    }
    assert!(expected.is_some_and(|answers| !answers.is_empty()));
}

fn answers_on(way: Way, script: &dyn Fn(&mut Client) -> Vec<Frame>) -> Vec<String> {
    let proxy = match way {
        Way::PostgresItself | Way::SessionMode => pooled(Mode::Session, 2),
        Way::TransactionMode => pooled(Mode::Transaction, 2),
        Way::BesideANeighbour => pooled(Mode::Transaction, 3),
    };
    let connect = match way {
        Way::PostgresItself => proxy.place("acme").direct(),
        _ => proxy.connect("acme"),
    };
    let mut client = connect.login();
    if way == Way::BesideANeighbour {
        let mut neighbour = Neighbour::new(&connect);
        client.in_between = Some(Box::new(move || neighbour.visit()));
    }
    let answers = seen(&script(&mut client));
    client.is_in_step();
    answers
}

fn compare(way: Way, expected: &[String], answers: &[String]) {
    let same = expected
        .iter()
        .zip(answers)
        .take_while(|(one, other)| one == other)
        .count();
    let around = |all: &[String]| {
        let from = same.saturating_sub(3);
        let lines = all.iter().skip(from).take(8);
        lines
            .map(|line| line.chars().take(300).collect::<String>())
            .collect::<Vec<_>>()
    };
    assert!(
        expected == answers,
        "by {way:?}, message {same} differs:\nexpected {:#?}\ngot      {:#?}",
        around(expected),
        around(answers)
    );
}

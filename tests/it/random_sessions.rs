//! Sessions made up at random, the same on every way to PostgreSQL: the answers must be the same.

use crate::harness::{
    Client, Mode, Neighbour, Proxy, Request, differential::seen, proxy::one_tenant,
};

use std::{
    fmt,
    time::{Duration, Instant},
};

/// Sessions of each test.
const SESSIONS: u32 = 50;

/// How long a failing session is made smaller.
const SHRINKING: Duration = Duration::from_secs(30);

/// A generator of numbers: the same for the same seed.
struct Dice(u32);

impl Dice {
    fn new(seed: u32) -> Self {
        Self(seed.wrapping_mul(2_654_435_761) | 1)
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % sides
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len())]
    }
}

/// Statements without parameters.
const PLAIN: &[&str] = &[
    "select 1",
    "select i from t order by i",
    "select generate_series(1, 5)",
    "insert into t values (1)",
    "delete from t where i > 3",
    "select 1/(count(*)::int - count(*)::int) from t",
    "selec",
    "",
    "select * from nowhere",
    "select repeat('long ', 5000)",
    "show timezone",
    "show datestyle",
    "select current_setting('application_name')",
    "do $$ begin raise notice 'noticed'; end $$",
];

/// Statements about transactions and settings.
const CONTROL: &[&str] = &[
    "begin",
    "begin",
    "commit",
    "commit",
    "rollback",
    "savepoint s",
    "rollback to s",
    "release s",
    "set timezone = 'Asia/Tokyo'",
    "set timezone = 'Europe/Rome'",
    "set local timezone = 'America/Lima'",
    "reset timezone",
    "set application_name = 'random'",
    "set datestyle = 'German'",
    "set local datestyle = 'SQL'",
    "reset all",
    "deallocate all",
    "deallocate a",
    "deallocate prepare b",
    "execute a",
    "execute b(1)",
    "explain (costs off) execute a",
    "discard all",
];

/// Statements with one parameter.
const ASKING: &[&str] = &[
    "select $1::text",
    "select $1::int + 1",
    "insert into t values ($1::int)",
    "select i, $1::text from t order by i",
    "select 1/($1::int + (random() * 0)::int)",
];

const NAMES: &[&str] = &["", "", "a", "a", "b", "c", "d"];
const PORTALS: &[&str] = &["", "", "", "p", "q"];
const VALUES: &[&str] = &["1", "2", "0", "text", ""];

fn sql(dice: &mut Dice) -> &'static str {
    match dice.roll(10) {
        0..4 => dice.pick(PLAIN),
        4..7 => dice.pick(CONTROL),
        _ => dice.pick(ASKING),
    }
}

/// One message, or two that belong together.
#[derive(Clone)]
enum Step {
    Parse(&'static str, &'static str),
    Bind(&'static str, &'static str, Vec<&'static str>),
    DescribeStatement(&'static str),
    DescribePortal(&'static str),
    Execute(&'static str, i32),
    Close(&'static str),
    Flush,
}

impl Step {
    fn random(dice: &mut Dice, steps: &mut Vec<Self>) {
        let (name, portal, value) = (dice.pick(NAMES), dice.pick(PORTALS), dice.pick(VALUES));
        match dice.roll(12) {
            0..6 => {
                let sql = sql(dice);
                if !name.is_empty() && dice.roll(4) > 0 {
                    steps.push(Self::Close(name));
                }
                steps.push(Self::Parse(name, sql));
                if dice.roll(2) == 0 {
                    let values = if sql.contains("$1") {
                        vec![value]
                    } else {
                        Vec::new()
                    };
                    steps.push(Self::Bind(portal, name, values));
                    steps.push(Self::DescribePortal(portal));
                    steps.push(Self::Execute(portal, 0));
                }
            }
            6 => steps.extend([
                Self::Bind(portal, name, vec![value]),
                Self::Execute(portal, 0),
            ]),
            7 => steps.extend([
                Self::Bind(portal, name, Vec::new()),
                Self::Execute(portal, 0),
            ]),
            8 => steps.push(Self::DescribeStatement(name)),
            9 => steps.push(Self::Execute(dice.pick(&["p", "q"]), 2)),
            10 => steps.push(Self::Close(name)),
            _ => steps.push(Self::Flush),
        }
    }

    fn write(&self, request: Request) -> Request {
        match self {
            Self::Parse(name, sql) => request.parse(name, sql),
            Self::Bind(portal, name, values) => request.bind(portal, name, values),
            Self::DescribeStatement(name) => request.describe_statement(name),
            Self::DescribePortal(portal) => request.describe_portal(portal),
            Self::Execute(portal, rows) => request.execute_some(portal, *rows),
            Self::Close(name) => request.close_statement(name),
            Self::Flush => request.flush(),
        }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parse(name, sql) => write!(f, "P({name} = {sql})"),
            Self::Bind(portal, name, values) => write!(f, "B({portal} = {name} {values:?})"),
            Self::DescribeStatement(name) => write!(f, "D(S {name})"),
            Self::DescribePortal(portal) => write!(f, "D(P {portal})"),
            Self::Execute(portal, rows) => write!(f, "E({portal} {rows})"),
            Self::Close(name) => write!(f, "C(S {name})"),
            Self::Flush => f.write_str("H"),
        }
    }
}

/// What is answered up to one `ReadyForQuery`.
#[derive(Clone, Debug)]
enum Batch {
    Simple(Vec<&'static str>),
    Extended(Vec<Step>),
}

impl Batch {
    fn random(dice: &mut Dice) -> Self {
        if dice.roll(3) == 0 {
            let count = 1 + dice.roll(3) / 2;
            let pick = |_| {
                if dice.roll(2) == 0 {
                    dice.pick(PLAIN)
                } else {
                    dice.pick(CONTROL)
                }
            };
            return Self::Simple((0..count).map(pick).collect());
        }
        let mut steps = Vec::new();
        for _ in 0..dice.roll(7) {
            Step::random(dice, &mut steps);
        }
        Self::Extended(steps)
    }

    fn write(&self, request: Request) -> Request {
        match self {
            Self::Simple(parts) => request.query(&parts.join("; ")),
            Self::Extended(steps) => steps
                .iter()
                .fold(request, |request, step| step.write(request))
                .sync(),
        }
    }

    /// Whether PostgreSQL survives it: 15.18 crashes when the unnamed portal that a failed simple
    /// query left behind is executed.
    fn is_harmless(&self) -> bool {
        let Self::Extended(steps) = self else {
            return true;
        };
        let is_unnamed = |step: &&Step| matches!(step, Step::Bind("", ..) | Step::Execute("", _));
        let first = steps.iter().find(is_unnamed);
        !matches!(first, Some(Step::Execute(..)))
    }

    /// The same with one part less, for each of its parts.
    fn smaller(&self) -> Vec<Self> {
        fn without<T: Clone>(parts: &[T]) -> Vec<Vec<T>> {
            let rest = |index| [&parts[..index], &parts[index + 1..]].concat();
            (0..parts.len()).map(rest).collect()
        }
        let mut all: Vec<_> = match self {
            Self::Simple(parts) if parts.len() < 2 => Vec::new(),
            Self::Simple(parts) => without(parts).into_iter().map(Self::Simple).collect(),
            Self::Extended(steps) => without(steps).into_iter().map(Self::Extended).collect(),
        };
        all.retain(Self::is_harmless);
        all
    }
}

/// Batches; those of one group are sent in one go.
#[derive(Clone, Debug)]
struct Session(Vec<Vec<Batch>>);

impl Session {
    fn random(seed: u32) -> Self {
        let mut dice = Dice::new(seed);
        let groups = 3 + dice.roll(12);
        let group = |_| {
            (0..=dice.roll(4))
                .map(|_| Batch::random(&mut dice))
                .collect()
        };
        Self((0..groups).map(group).collect())
    }

    fn run(&self, client: &mut Client) -> Vec<Vec<String>> {
        let mut answers = Vec::new();
        for group in &self.0 {
            let request = group
                .iter()
                .fold(Request::new(), |request, batch| batch.write(request));
            client.send(&request);
            for _ in group {
                answers.push(seen(&client.until_ready()));
            }
        }
        answers
    }

    /// Sessions that are a little smaller, each in another way.
    fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for (number, group) in self.0.iter().enumerate() {
            let with = |groups: &[Vec<Batch>]| {
                Self([&self.0[..number], groups, &self.0[number + 1..]].concat())
            };
            all.push(with(&[]));
            for (place, batch) in group.iter().enumerate() {
                let (before, after) = (&group[..place], &group[place + 1..]);
                if group.len() > 1 {
                    all.push(with(&[[before, after].concat()]));
                }
                if !before.is_empty() {
                    all.push(with(&[before.to_vec(), group[place..].to_vec()]));
                }
                for less in batch.smaller() {
                    all.push(with(&[[before, &[less], after].concat()]));
                }
            }
        }
        all
    }
}

/// One way to PostgreSQL, for many sessions.
struct Way {
    name: &'static str,
    proxy: Proxy,
    is_direct: bool,
    has_neighbour: bool,
}

impl Way {
    fn new(name: &'static str, mode: Mode, servers: u32) -> Self {
        let proxy = one_tenant(|tenant| {
            tenant
                .mode(mode)
                .pool_size(servers)
                .set("max_prepared_statements", 3)
        });
        Self {
            name,
            proxy,
            is_direct: false,
            has_neighbour: false,
        }
    }

    fn run(&self, session: &Session) -> Vec<Vec<String>> {
        let connect = if self.is_direct {
            self.proxy.place("acme").direct()
        } else {
            self.proxy.connect("acme")
        };
        let mut client = connect.login();
        client.exec("drop table if exists t; create table t (i int); insert into t values (3)");
        if self.has_neighbour {
            let mut neighbour = Neighbour::new(&connect);
            client.in_between = Some(Box::new(move || neighbour.visit()));
        }
        let answers = session.run(&mut client);
        client.in_between = None;
        client.query("rollback");
        client.is_in_step();
        answers
    }
}

/// Answers that differ: what PostgreSQL says, what comes by the way under test.
type Difference = (Vec<String>, Vec<String>);

fn difference(direct: &Way, way: &Way, session: &Session) -> Option<Difference> {
    // There are sessions that PostgreSQL itself does not survive.
    let expected = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| direct.run(session)));
    let pairs = expected.ok()?.into_iter().zip(way.run(session));
    pairs
        .into_iter()
        .find(|(expected, got)| expected != got && !is_unknowable(expected, got))
}

/// In a transaction that has failed, PostgreSQL parses nothing any more: of a statement that a server
/// does not know yet, only that can be told.
fn is_unknowable(expected: &[String], got: &[String]) -> bool {
    let pairs = expected.iter().zip(got);
    let same = pairs.take_while(|(expected, got)| expected == got).count();
    let knows = |answer: &String| {
        let begins = |start: &&str| answer.starts_with(start);
        ["t(", "n(", "E(ERROR 08P01: bind message"]
            .iter()
            .any(begins)
    };
    let [refused, ready] = &got[same..] else {
        return false;
    };
    refused.starts_with("E(ERROR 25P02") && ready == "Z(E)" && expected.get(same).is_some_and(knows)
}

/// Makes a session with a difference as small as it gets, and fails with it.
fn fail_with_the_smallest(direct: &Way, way: &Way, seed: u32, mut session: Session) -> ! {
    let mut last = None;
    let start = Instant::now();
    while let Some((smaller, found)) = session.smaller().into_iter().find_map(|smaller| {
        let is_late = start.elapsed() > SHRINKING;
        let found = if is_late {
            None
        } else {
            difference(direct, way, &smaller)
        };
        found.map(|found| (smaller, found))
    }) {
        session = smaller;
        last = Some(found);
    }
    panic!(
        "seed {seed}, {}: {:#?}\n(expected, got): {last:#?}",
        way.name, session.0
    );
}

/// `PGUSHER_TEST_SESSIONS=n` runs n times as many.
fn all_sessions(first_seed: u32, way: &Way) {
    let times = std::env::var("PGUSHER_TEST_SESSIONS").ok();
    let times: u32 = times.map_or(1, |times| times.parse().expect("a number"));
    let seeds = (0..times).flat_map(|round| {
        let first = first_seed + round * 1000;
        first..first + SESSIONS
    });
    let direct = Way {
        is_direct: true,
        ..Way::new("PostgreSQL itself", Mode::Session, 1)
    };
    for seed in seeds {
        let session = Session::random(seed);
        if difference(&direct, way, &session).is_some() {
            fail_with_the_smallest(&direct, way, seed, session);
        }
    }
}

#[test]
fn random_sessions_are_the_same_in_session_mode() {
    all_sessions(0, &Way::new("session mode", Mode::Session, 2));
}

#[test]
fn random_sessions_are_the_same_in_transaction_mode() {
    let alone = Way::new("transaction mode", Mode::Transaction, 1);
    all_sessions(100, &alone);
}

#[test]
fn random_sessions_are_the_same_beside_a_neighbour() {
    let beside = Way {
        has_neighbour: true,
        ..Way::new("beside a neighbour", Mode::Transaction, 3)
    };
    all_sessions(200, &beside);
}

//! Scripts that are run on PostgreSQL itself and in transaction mode, and return the same.
//!
//! One thing no script may ask: whether a custom setting that was reset had ever been set. Such a
//! name stays known to its server, with an empty value, and PostgreSQL has no way to take it back.

use super::{
    Client, Frame, Mode, Place, Postgres, Proxy, Request, Tenant,
    company::{Company, finds_nothing, footprint},
    eventually,
};
use std::thread;

/// A way to PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Directly,
    /// Everyone uses the same server in turn.
    OneServer,
    /// Servers are taken away in between.
    FourServers,
}

/// What a client does, given the tenant's role.
type Tell<'t> = dyn Fn(&mut Client, &str) -> Vec<Frame> + 't;

/// A script, and how it is told.
struct Teller<'t> {
    script: String,
    tell: Box<Tell<'t>>,
}

/// What a script finds when it begins, and what it may do.
#[derive(Clone, Copy, Default)]
pub struct Trial<'a> {
    setup: &'a [&'a str],
    admin_setup: &'a [&'a str],
    pins: bool,
    has_database: bool,
}

impl<'a> Trial<'a> {
    /// The scripts leave nothing that could keep others from a pool's only server.
    pub fn carried() -> Self {
        Self::default()
    }

    /// The scripts may keep their server: a pool of one has no room for others meanwhile.
    pub fn pinned() -> Self {
        Self {
            pins: true,
            ..Self::default()
        }
    }

    /// Statements that the tenant's role has run before, on a connection of its own.
    pub fn setup(mut self, statements: &'a [&'a str]) -> Self {
        self.setup = statements;
        self
    }

    /// Statements that a superuser has run before; `{role}` is the tenant's role.
    pub fn admin_setup(mut self, statements: &'a [&'a str]) -> Self {
        self.admin_setup = statements;
        self
    }

    /// In a database of the tenant's own.
    pub fn in_a_database(mut self) -> Self {
        self.has_database = true;
        self
    }

    /// Each script is run by two clients, one by the simple, one by the extended protocol. A line is
    /// a script, its statements separated by ` | `; a line that begins with `|` goes on with the
    /// script before it. `{role}` is the tenant's role, `⏎` the end of a line.
    pub fn scripts(&self, lines: &str) {
        let lines: Vec<_> = lines.lines().map(str::trim).collect();
        let text = lines.join("\n").replace("\n|", " |");
        let scripts = text.lines().filter(|script| !script.is_empty());
        let mut tellers: Vec<Teller<'_>> = Vec::new();
        for script in scripts {
            for is_extended in [false, true] {
                let tell = move |client: &mut Client, role: &str| {
                    let script = script.replace("{role}", role).replace('⏎', "\n");
                    let steps = script.split(" | ");
                    steps
                        .flat_map(|step| say(client, step, is_extended))
                        .collect()
                };
                tellers.push(Teller {
                    script: script.to_owned(),
                    tell: Box::new(tell),
                });
            }
        }
        self.compare(&tellers);
    }

    /// As [`Self::scripts`], for one client that does more than to say statements.
    pub fn run(&self, script: impl Fn(&mut Client) -> Vec<Frame> + 'static) {
        self.compare(&[Teller {
            script: "a program".to_owned(),
            tell: Box::new(move |client, _| script(client)),
        }]);
    }

    fn compare(&self, tellers: &[Teller<'_>]) {
        let expected = self.answers_on(Way::Directly, tellers);
        assert!(expected.iter().all(|answers| !answers.is_empty()));
        for way in [Way::OneServer, Way::FourServers] {
            let answers = self.answers_on(way, tellers);
            for ((expected, answers), teller) in expected.iter().zip(&answers).zip(tellers) {
                same(&format!("{way:?}, {}", teller.script), expected, answers);
            }
        }
    }

    fn place(&self) -> Place {
        let postgres = Postgres::shared();
        let place = if self.has_database {
            postgres.database()
        } else {
            postgres.place()
        };
        for statement in self.admin_setup {
            place
                .admin()
                .exec(&statement.replace("{role}", place.role()));
        }
        let mut owner = place.direct().login();
        for statement in self.setup {
            owner.exec(statement);
        }
        place
    }

    fn answers_on(&self, way: Way, tellers: &[Teller<'_>]) -> Vec<Vec<String>> {
        let place = self.place();
        let clean = footprint(&mut place.direct().login());
        let servers = if way == Way::FourServers { 4 } else { 1 };
        let tenant = Tenant::new("acme", &place)
            .mode(Mode::Transaction)
            .pool_size(servers);
        let proxy = (way != Way::Directly).then(|| Proxy::of([tenant]).start());
        let connect = || {
            let proxied = proxy.as_ref().map(|proxy| proxy.connect("acme"));
            proxied.unwrap_or_else(|| place.direct())
        };
        let mut all = Vec::new();
        for (number, teller) in tellers.iter().enumerate() {
            let _said = Said(format!("{way:?}, {}", teller.script));
            let mut client = connect().login();
            if way == Way::FourServers || way == Way::OneServer && !self.pins {
                let mut company = Company::new(&connect(), &clean, way == Way::FourServers);
                client.in_between = Some(Box::new(move || company.visit()));
            }
            all.push(seen(
                &(teller.tell)(&mut client, place.role()),
                place.role(),
            ));
            leave(client, number);
            finds_nothing(&mut connect().login(), &clean);
            holds_no_locks(&place);
        }
        all
    }
}

/// Names the client of a trial when the test fails.
struct Said(String);

impl Drop for Said {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

/// Says a statement.
fn say(client: &mut Client, sql: &str, is_extended: bool) -> Vec<Frame> {
    let _said = Said(format!("it said: {sql:.300}"));
    if !is_extended {
        return client.query(sql);
    }
    let request = Request::new()
        .parse("", sql)
        .bind("", "", &[])
        .describe_portal("")
        .execute("")
        .sync();
    client.ask(&request)
}

/// Says good-bye, or is gone without a word.
fn leave(mut client: Client, number: usize) {
    client.in_between = None;
    if number % 3 == 2 {
        return client.reset();
    }
    client.send(&Request::new().terminate());
    client.rest();
}

fn holds_no_locks(place: &Place) {
    let mut admin = place.admin();
    let sql = format!(
        "select count(*) from pg_locks join pg_stat_activity using (pid) \
         where locktype = 'advisory' and usename = '{}'",
        place.role()
    );
    eventually("nobody holds an advisory lock", || admin.value(&sql) == "0");
}

/// What a client sees of an answer, without what differs between two places.
fn seen(frames: &[Frame], role: &str) -> Vec<String> {
    let show = |frame: &Frame| match frame.tag {
        b'E' | b'N' => format!("{}({:?})", frame.kind(), frame.fields().without_source()),
        b'T' => format!("T({})", names(&frame.body).join(" ")),
        b'D' => format!("D({})", columns(&frame.body).join("|")),
        _ => format!("{}({})", frame.kind(), frame.body.escape_ascii()),
    };
    let show = |frame| show(frame).replace(role, "ROLE");
    frames.iter().map(show).collect()
}

/// The oids from here on differ between two places.
const FIRST_OF_USERS: u32 = 16384;

/// Name, type and format of the columns of a `RowDescription`.
fn names(body: &[u8]) -> Vec<String> {
    let mut rest = &body[2..];
    let mut names = Vec::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == 0).expect("a name");
        let (name, kind, facts) = (&rest[..end], &rest[end + 7..end + 11], &rest[end + 11..]);
        let kind = u32::from_be_bytes(kind.try_into().unwrap()).min(FIRST_OF_USERS);
        let facts = facts[..8].escape_ascii();
        names.push(format!("{}:{kind}{facts}", name.escape_ascii()));
        rest = &rest[end + 19..];
    }
    names
}

/// The bytes of the columns of a `DataRow`.
fn columns(body: &[u8]) -> Vec<String> {
    let mut rest = &body[2..];
    let mut columns = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let (column, after) = match usize::try_from(i32::from_be_bytes(*length)) {
            Ok(length) => after.split_at(length),
            Err(_) => (&b"NULL"[..], after),
        };
        columns.push(column.escape_ascii().to_string());
        rest = after;
    }
    columns
}

fn same(who: &str, expected: &[String], answers: &[String]) {
    let pairs = expected.iter().zip(answers);
    let count = pairs.take_while(|(one, other)| one == other).count();
    let around = |all: &[String]| {
        let lines = all.iter().skip(count.saturating_sub(4)).take(8);
        let lines = lines.map(|line| line.chars().take(300).collect::<String>());
        lines.collect::<Vec<_>>()
    };
    assert!(
        expected == answers,
        "{who}: message {count} differs:\nexpected {:#?}\ngot      {:#?}",
        around(expected),
        around(answers)
    );
}

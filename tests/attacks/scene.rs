//! Where attacks happen, and how a leak is found.

use crate::{
    attack::{Act, Attack, Class, Step, Tier},
    door::{Door, Session},
    harness::{frames::Frame, postgres::Endpoint, request::Request},
    wire::{Answer, End},
};
use std::{
    collections::BTreeMap,
    fmt::Write,
    net::{IpAddr, Ipv4Addr},
    panic::{self, AssertUnwindSafe},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

/// What came of an attack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Blocked,
    /// This.
    Leaked(String),
}

/// Who the attacker is to the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Another tenant.
    Other,
    /// The victim itself, with a key that only reads.
    OwnReader,
}

/// Two tenants, one of whom attacks the other.
pub struct Stage {
    /// For tables.
    pub label: String,
    /// How they are kept apart.
    pub tier: Tier,
    /// How the attacker comes in.
    pub attacker: Door,
    /// How the victim comes in.
    pub victim: Door,
    /// What stands in braces in the statements of an attack. The attacker is told all of it, but
    /// for `{canary}`.
    pub names: BTreeMap<&'static str, String>,
    /// Makes both places as they were.
    pub restore: Box<dyn Fn()>,
    endpoint: Endpoint,
    /// Whether that is needed ahead of each attack.
    pub is_naive: bool,
    /// Who attacks.
    pub who: Who,
    /// What provisioning told to be open.
    pub holes: Vec<String>,
    /// Whether looking at the victim's table already shows its rows, without any attack.
    is_open: bool,
    sitter: Option<Session>,
    visitor: Option<Session>,
    baseline: Option<String>,
}

/// How often something is measured that others move as well.
const TRIES: usize = 5;

/// What the victim finds in a session of its own: its data, its privileges, its settings. The
/// marks of an attacker are looked for as well.
const DIGEST: &str = "select concat_ws('; ', \
    (select string_agg(id || '=' || secret, ',' order by id) from accounts where id < 1000), \
    (select count(*) from orders where id <> 7777), \
    (select string_agg(relname || ' ' || relowner || ' ' || coalesce(relacl::text, ''), ',' order by relname) \
        from pg_class where oid in (to_regclass('accounts'), to_regclass('orders'))), \
    (select md5(string_agg(name || '=' || setting, ',' order by name)) from pg_settings \
        where name !~ '\\.' and name !~ '^(transaction_|in_hot)'), \
    'settings ' || (select string_agg(name || '=' || setting, ',' order by name) from pg_settings \
        where name in ('search_path', 'statement_timeout', 'lock_timeout', 'work_mem', 'row_security', \
            'default_transaction_read_only', 'TimeZone', 'DateStyle', 'role', 'application_name')), \
    'mark ' || coalesce(current_setting('app.mark', true), ''), \
    'temp ' || coalesce(to_regclass('pg_temp.evil')::text, ''))";

/// The same in places where the victim has things of its own.
const DIGEST_OWN: &str = "select concat_ws('; ', whisper(), (select last_value from ticket), \
    (select string_agg(id || '', ',') from drafts))";

impl Stage {
    /// A stage whose places are made by `restore`.
    pub fn new(
        (label, tier): (&str, Tier),
        endpoint: &Endpoint,
        doors: (Door, Door),
        restore: Box<dyn Fn()>,
    ) -> Self {
        let (attacker, victim) = doors;
        Self {
            label: label.to_owned(),
            tier,
            attacker,
            victim,
            names: BTreeMap::new(),
            restore,
            endpoint: endpoint.clone(),
            is_naive: false,
            who: Who::Other,
            holes: Vec::new(),
            is_open: false,
            sitter: None,
            visitor: None,
            baseline: None,
        }
    }

    /// With a name to be put into statements.
    pub fn name(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.names.insert(name, value.into());
        self
    }

    /// The statement with its names put in.
    pub fn fill(&self, sql: &str) -> String {
        let mut filled = sql.to_owned();
        for (name, value) in &self.names {
            filled = filled.replace(&format!("{{{name}}}"), value);
        }
        filled
    }

    /// For tables.
    pub fn column(&self) -> String {
        let who = match self.who {
            Who::Other => "",
            Who::OwnReader => ", by its own reader",
        };
        format!("{} {}{who}", self.tier.name(), self.label)
    }

    /// A name's value.
    pub fn value(&self, name: &str) -> String {
        self.names.get(name).cloned().unwrap_or_default()
    }

    /// What makes the victim's place worth a look, said by the victim itself.
    fn furnish(&self, victim: &mut Session) -> Result<(), String> {
        // What it could not take back when it was held up. Left there, it would count against the next.
        for statement in [
            "delete from orders where id = 7777",
            "delete from accounts where id in (7776, 7777)",
        ] {
            let answer = victim.query(statement);
            if !answer.is_ok() {
                return Err(format!("{statement}: {answer:?}"));
            }
        }
        for statement in crate::victim::furniture(self.tier) {
            let answer = victim.query(&self.fill(statement));
            // The first is looked at all the time; others may be refused.
            if statement.starts_with("create function whisper") {
                let is_there = answer.code() == "42723";
                if !is_there && !answer.is_ok() {
                    return Err(format!("{statement}: {answer:?}"));
                }
            }
        }
        Ok(())
    }

    /// The session that the victim has all the time, with state of its own.
    fn sit(&mut self) -> Result<Session, String> {
        let mut sitter = patiently(&self.victims_door())
            .map_err(|answer| format!("the victim can't log in: {answer:?}"))?;
        for statement in crate::victim::SITTING {
            sitter.query(&self.fill(statement));
        }
        let mut questions = vec![
            ("pid", "select pg_backend_pid()"),
            (
                "temp",
                "select nspname from pg_namespace where oid = pg_my_temp_schema()",
            ),
        ];
        if self.tier.is_row() {
            questions.push((
                "table_oid",
                "select c.oid from pg_class c join pg_namespace n on n.oid = relnamespace \
                where relname = 'accounts' and nspname = 'data'",
            ));
        } else {
            questions.push(("table_oid", "select 'accounts'::regclass::oid"));
            questions.push(("whisper_oid", "select 'whisper'::regproc::oid"));
        }
        for (name, sql) in questions {
            if let Some(value) = sitter.query(sql).value() {
                self.names.insert(name, value);
            }
        }
        Ok(sitter)
    }

    fn open_victim(&self) -> Result<Session, Answer> {
        self.victims_door().open()
    }

    fn victims_door(&self) -> Door {
        let door = self.victim.clone();
        door.parameter("application_name", &self.value("canary"))
    }

    /// What the victim finds now, in a new session or in one that it has had for a while.
    fn digest(&mut self, is_new: bool) -> Result<String, String> {
        if is_new {
            self.visitor = None;
        }
        let mut victim = match self.visitor.take() {
            Some(visitor) => visitor,
            None => self
                .open_victim()
                .map_err(|answer| format!("the victim can't log in ({})", answer.code()))?,
        };
        let mut found = String::new();
        let own = (!self.tier.is_row()).then_some(DIGEST_OWN);
        for sql in [DIGEST].into_iter().chain(own) {
            let answer = victim.query(sql);
            let Some(value) = answer.value() else {
                return Err(format!("a new session of the victim gets {answer:?}"));
            };
            writeln!(found, "{value}").ok();
        }
        self.visitor = Some(victim);
        Ok(found)
    }

    /// Nothing is taken to be as it was.
    pub fn forget(&mut self) {
        self.sitter = None;
        self.visitor = None;
        self.baseline = None;
    }

    /// Everything is as before any attack; why it can't be.
    pub fn prepare(&mut self) -> Result<(), String> {
        let is_changed = self.baseline.is_none() || self.attacker.turnstile.is_some();
        if is_changed {
            self.sitter = None;
            self.visitor = None;
        }
        if is_changed || !self.is_naive {
            // The harness's clients panic when PostgreSQL does not answer.
            let restored = panic::catch_unwind(AssertUnwindSafe(|| (self.restore)()));
            restored.ok().ok_or("it can't be put back")?;
        }
        if is_changed {
            let mut victim = patiently(&self.victims_door())
                .map_err(|answer| format!("the victim can't log in: {answer:?}"))?;
            self.furnish(&mut victim)?;
            drop(victim);
            self.baseline = Some(self.digest(true)?);
        }
        if self.sitter.is_none() {
            self.sitter = Some(self.sit()?);
        }
        // The last that can be seen of it.
        let last = self.fill("select 'a query with {canary}'");
        if let Some(sitter) = &mut self.sitter {
            sitter.query(&last);
            sitter.heard.clear();
        }
        Ok(())
    }

    /// Whether the victim still can do what it could.
    fn victim_goes_on(&mut self, class: Class) -> Option<String> {
        let own = ["create table probe_table (x int)", "drop table probe_table"];
        let own = if self.tier.is_row() || class != Class::Block {
            &own[..0]
        } else {
            &own
        };
        let common = [
            "insert into accounts (id, secret) values (7777, 'probe')",
            "insert into orders (id, account_id, item) values (7777, 7777, 'pen')",
            "update accounts set secret = secret where id = 1",
            "delete from orders where id = 7777",
            "delete from accounts where id = 7777",
        ];
        for sql in common.iter().chain(own) {
            let answer = self.sitter.as_mut()?.query(sql);
            match answer.end {
                End::Ready if answer.is_ok() => {}
                End::Ready => return Some(format!("the victim's {sql:?} gets {answer:?}")),
                End::Closed => return Some(format!("the victim's session ends: {answer:?}")),
                End::Silent => {
                    let who = self.who_blocks();
                    return Some(format!("the victim waits in {sql:?}; {who}"));
                }
            }
        }
        None
    }

    /// What the victim finds that is new to it.
    fn victim_finds(&mut self, is_new: bool) -> Option<String> {
        let found = match self.digest(is_new) {
            Ok(found) => found,
            Err(error) => return Some(error),
        };
        let before = self.baseline.as_deref().unwrap_or_default();
        (found != before).then(|| format!("the victim finds {found:?} instead of {before:?}"))
    }

    /// What PostgreSQL says of who waits for whom.
    fn who_blocks(&self) -> String {
        let mut admin = self.endpoint.admin();
        let waits = admin.values(
            "select format('%s waits for %s', usename, (select string_agg(usename || ' ' || state || ' ' || query, ', ') \
                from pg_stat_activity b where b.pid = any (pg_blocking_pids(a.pid)))) \
             from pg_stat_activity a where cardinality(pg_blocking_pids(pid)) > 0",
        );
        format!("in PostgreSQL {waits:?}")
    }

    /// Looks without an attack. Where that shows the victim's rows already, an attack must show
    /// them for its own reason.
    pub fn look(&mut self) -> Result<(), String> {
        let nothing = Attack::new("nothing", Class::Read, &[], Act::Sql(&[]));
        match self.suffer(&nothing, false)? {
            Verdict::Blocked => return Ok(()),
            Verdict::Leaked(_) => self.is_open = true,
        }
        match self.suffer(&nothing, false)? {
            Verdict::Blocked => Ok(()),
            Verdict::Leaked(what) => Err(format!("it leaks without an attack: {what}")),
        }
    }

    /// Does it, and tells what came of it. An error is the harness's: the places are not as they
    /// should be.
    pub fn suffer(&mut self, attack: &Attack, in_transaction: bool) -> Result<Verdict, String> {
        self.prepare()?;
        if !self.is_naive {
            self.attacker.from = Some(next_address());
        }
        let attacker = patiently(&self.attacker)
            .map_err(|answer| format!("the attacker can't log in: {answer:?}"))?;
        let mut scene = Scene {
            stage: self,
            attacker,
        };
        let done = scene.act(&attack.act, in_transaction);
        let leak = done.or_else(|| scene.judge(attack.class));
        Ok(match leak {
            None => Verdict::Blocked,
            Some(what) => {
                self.forget();
                Verdict::Leaked(what)
            }
        })
    }

    /// Where PostgreSQL listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The victim's session that looks has gone.
    pub fn forget_visitor(&mut self) {
        self.visitor = None;
    }

    /// Says something as the victim, in the session that it has.
    pub fn victim_says(&mut self, sql: &str) -> Option<Answer> {
        let sql = self.fill(sql);
        self.sitter.as_mut().map(|sitter| sitter.query(&sql))
    }

    /// Whether PostgreSQL says that the victim's statement, which names the canary, runs.
    pub fn victim_runs(&self) -> bool {
        let sql = format!(
            "select count(*) from pg_stat_activity where state = 'active' \
                and pid <> pg_backend_pid() and query ~ 'not cancelled {}'",
            self.value("canary")
        );
        self.endpoint.admin().value(&sql) == "1"
    }

    /// Whether PostgreSQL says that a statement that begins like this waits for another session.
    pub fn is_blocked(&self, sql: &str) -> bool {
        let waits = format!(
            "select count(*) > 0 from pg_stat_activity \
             where query like '{sql}%' and cardinality(pg_blocking_pids(pid)) > 0"
        );
        self.endpoint.admin().value(&waits) == "t"
    }

    /// The victim's session.
    pub fn sitter(&mut self) -> &mut Session {
        self.sitter.as_mut().expect("the victim sits")
    }
}

/// An attack under way.
pub struct Scene<'a> {
    /// Where.
    pub stage: &'a mut Stage,
    /// The attacker's session.
    pub attacker: Session,
}

impl Scene<'_> {
    fn act(&mut self, act: &Act, in_transaction: bool) -> Option<String> {
        match *act {
            Act::Sql(statements) => {
                if in_transaction {
                    self.say_in_transaction(statements);
                } else {
                    for sql in statements {
                        self.say(sql);
                    }
                }
                None
            }
            Act::Script(steps) => {
                for step in steps {
                    self.step(*step);
                }
                None
            }
            Act::Refused(statements) => {
                let answers: Vec<_> = statements.iter().map(|sql| self.say(sql)).collect();
                let last = answers.last()?;
                last.is_ok()
                    .then(|| format!("{:?} succeeds", statements.last()))
            }
            Act::Tell(before, present, absent) => {
                for sql in before {
                    self.say(sql);
                }
                self.tell(present, absent)
            }
            Act::Gauge(measure, victim) => self.gauge(measure, victim),
            Act::Bytes(bytes) => {
                let bytes = bytes(self);
                self.attacker.ask(&bytes);
                None
            }
            Act::Login(parameters) => self.log_in_with(&parameters(self)),
            Act::Queue(ref queue) => crate::queue::held_up(self, queue),
            Act::Own(act) => act(self),
        }
    }

    /// Whether anything stops the victim.
    pub fn victim_is_served(&mut self) -> Option<String> {
        let goes_on = self.stage.victim_goes_on(Class::Block);
        goes_on.or_else(|| self.stage.victim_finds(true))
    }

    /// Sends bytes on a connection of their own, and hears what comes.
    pub fn knock(&mut self, bytes: &[u8]) {
        let frames = self.stage.attacker.knock(bytes);
        self.attacker.heard.extend(frames);
    }

    /// The attacker says this.
    pub fn say(&mut self, sql: &str) -> Answer {
        let sql = self.stage.fill(sql);
        self.attacker.query(&sql)
    }

    /// Each statement in a savepoint of its own, so that an error loses only that.
    fn say_in_transaction(&mut self, statements: &[&str]) {
        self.say("begin");
        for sql in statements {
            self.say("savepoint before");
            if !self.say(sql).is_ok() {
                self.say("rollback to before");
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::A(sql) => drop(self.say(sql)),
            Step::V(sql) => drop(self.stage.victim_says(sql)),
            Step::Prepared(sql) => {
                let sql = self.stage.fill(sql);
                self.stage.sitter().prepared("mine", &sql);
            }
            Step::Again => self.come_again(),
            Step::Fence => hear_fence(&mut self.attacker),
            Step::VictimFence => hear_fence(self.stage.sitter()),
        }
    }

    /// The attacker leaves, and comes again.
    pub fn come_again(&mut self) {
        let heard = std::mem::take(&mut self.attacker.heard);
        if self.stage.attacker.turnstile.is_none() {
            self.attacker.send(Request::new().terminate().bytes());
        }
        if let Ok(session) = self.stage.attacker.open() {
            self.attacker = session;
        }
        self.attacker.heard.splice(..0, heard);
    }

    /// The answer to a statement, without what differs each time.
    fn trace(&mut self, sql: &str) -> Vec<String> {
        self.say("begin");
        let answer = self.say(sql);
        self.say("rollback");
        let mut lines = vec![answer.code()];
        // A plan repeats the condition, which differs by the value that was asked for.
        let plan = |line: String| match line
            .split_once(" Cond: ")
            .or_else(|| line.split_once("  Filter: "))
        {
            Some((before, _)) => before.to_owned(),
            None => line,
        };
        let keep = |line: &String| !line.contains("Time:") && !line.contains("Buffers:");
        lines.extend(answer.values().into_iter().filter(keep).map(plan));
        lines
    }

    /// Others, who share the database, move things as well: what differs must differ for its own
    /// reason, or do so every time.
    fn tell(&mut self, present: &str, absent: &str) -> Option<String> {
        let mut found = None;
        for _ in 0..TRIES {
            let (with, without) = (self.trace(present), self.trace(absent));
            if with == without {
                return None;
            }
            let is_steady = with == self.trace(present) && without == self.trace(absent);
            found = Some(format!("{with:?} differs from {without:?}"));
            if is_steady {
                break;
            }
        }
        found
    }

    /// The same for a measure: it must be still before and after.
    fn gauge(&mut self, measure: &str, victim: &[&str]) -> Option<String> {
        let mut found = None;
        for _ in 0..TRIES {
            let first = self.say(measure).values();
            let second = self.say(measure).values();
            if first != second {
                continue;
            }
            for sql in victim {
                self.stage.victim_says(sql);
            }
            let third = self.say(measure).values();
            if second == third {
                return None;
            }
            found = Some(format!(
                "{second:?} becomes {third:?} when the victim does something"
            ));
            if third == self.say(measure).values() {
                break;
            }
        }
        found
    }

    fn log_in_with(&mut self, parameters: &[(Vec<u8>, Vec<u8>)]) -> Option<String> {
        let mut body = crate::harness::connect::V3_0.to_be_bytes().to_vec();
        for (name, value) in parameters {
            for text in [name, value] {
                body.extend(text);
                body.push(0);
            }
        }
        body.push(0);
        let packet = crate::harness::request::untyped(&body);
        // Who may say anything says nothing of who it is.
        let mut door = self.stage.attacker.clone();
        door.greeting.clear();
        match door.open_with(&packet) {
            Ok(session) => self.attacker = session,
            Err(answer) => self.attacker.heard.extend(answer.frames),
        }
        None
    }

    /// Looks at the victim's data with whatever the attacker has become.
    fn judge(&mut self, class: Class) -> Option<String> {
        if class == Class::Bytes {
            self.attacker.catch_up();
        }
        let looks = [
            "select * from {table}",
            "select * from accounts",
            "select whisper()",
        ];
        // Where the table can just be read, that proves nothing for what is not about reading.
        if self.stage.is_open && !matches!(class, Class::Read | Class::Observe) {
            self.attacker.heard.clear();
        }
        let looks = match self.stage.who {
            // It may read; what it writes is found.
            Who::OwnReader => &[
                "insert into accounts (id, secret) values (4242, 'written')",
                "update accounts set secret = 'written' where id = 1",
                "delete from accounts where id = 2",
            ],
            Who::Other if self.stage.is_open => &looks[1..],
            Who::Other => &looks[..],
        };
        for sql in looks {
            if matches!(self.attacker.status(), b'I' | b'T') {
                let in_transaction = self.attacker.status() == b'T';
                if in_transaction {
                    self.say("savepoint look");
                }
                let is_ok = self.say(sql).is_ok();
                if is_ok && self.stage.who == Who::OwnReader {
                    return Some(format!("who may only read succeeds with {sql:?}"));
                }
                if !is_ok && in_transaction {
                    self.say("rollback to look");
                }
            }
        }
        let canary = self.stage.value("canary");
        if self.stage.who == Who::Other && self.attacker.has_heard(&canary) {
            return Some(self.where_heard(&canary));
        }
        if let Some(what) = self.stage.victim_goes_on(class) {
            return Some(what);
        }
        // What changes roles and databases shows in new sessions.
        let is_new = matches!(class, Class::Write | Class::Block);
        if let Some(what) = self.stage.victim_finds(is_new) {
            return Some(what);
        }
        let mark = self.stage.value("mark");
        if self.stage.sitter().has_heard(&mark) {
            return Some("the victim hears what the attacker says".into());
        }
        if class == Class::Leave {
            self.come_again();
            return self.stage.victim_finds(true);
        }
        None
    }

    fn where_heard(&self, canary: &str) -> String {
        let has = |frame: &&Frame| {
            let text = String::from_utf8_lossy(&frame.body);
            text.contains(canary)
        };
        let frame = self.attacker.heard.iter().find(has);
        let text = frame.map(|frame| String::from_utf8_lossy(&frame.body).replace('\0', " "));
        let text: String = text.unwrap_or_default().chars().take(160).collect();
        format!("the attacker hears the canary: {text:?}")
    }
}

/// Comes in before anything is tried. Others attack the same servers meanwhile: who is refused for
/// their sake comes again.
fn patiently(door: &Door) -> Result<Session, Answer> {
    let mut came = door.open();
    for _ in 0..TRIES {
        if came.is_ok() || door.turnstile.is_some() {
            break;
        }
        thread::park_timeout(Duration::from_millis(500));
        came = door.open();
    }
    came
}

/// An address that nobody has come from yet: who attacks has many.
pub fn next_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let [_, high, middle, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    // 127.1.0.0 and on: Linux has all of 127.0.0.0/8 on its loopback.
    Ipv4Addr::new(127, high.saturating_add(1), middle, low).into()
}

/// Waits for the session's own notification, unless it can't come.
fn hear_fence(session: &mut Session) {
    let is_fence =
        |frame: &Frame| frame.tag == b'A' && frame.body.windows(5).any(|part| part == b"fence");
    // Who may not listen waits for nothing.
    let is_refused = session.heard.iter().any(|frame| frame.tag == b'E');
    if !is_refused && !session.heard.iter().any(is_fence) {
        session.until(is_fence);
    }
}

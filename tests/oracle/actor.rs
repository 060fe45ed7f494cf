//! A client: what it says, what it hears, and what it makes of that.

use super::{
    acts,
    chance::Chance,
    ending::{Gone, Outcome},
    harness::{Client, Connect, Request},
    model::{Control, Model, Unnamed},
    post::Mailbox,
    reading::{line, matches},
    setting::{SETTINGS, question},
    statement::Statement,
    world::World,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

/// Longest wait for an answer: others keep servers meanwhile.
const PATIENCE: Duration = Duration::from_mins(1);

/// Steps that a failure shows.
const SHOWN: usize = 60;

/// A client of a tenant, in one session after another.
pub struct Actor {
    /// What it shares with others.
    pub world: Arc<World>,
    /// Its script.
    pub chance: Chance,
    /// Its number.
    pub number: usize,
    /// How many sessions it had before.
    pub session: u32,
    /// What it knows of its session.
    pub model: Model,
    /// What others sent it.
    pub mailbox: Mailbox,
    /// Its connection; `None` between two sessions.
    pub client: Option<Client>,
    /// Whether its startup packet has settings. What stands behind a reset in the same Query or batch
    /// finds the pool's values: such a session resets alone.
    pub says_first: bool,
    marks: u32,
    history: VecDeque<String>,
}

impl Actor {
    /// The client of this number, without a session.
    pub fn new(world: Arc<World>, number: usize) -> Self {
        let mut actor = Self {
            chance: world.chance(number),
            model: Model::new(&world.role, world.defaults.clone()),
            mailbox: Mailbox::new(&world.post),
            number,
            session: 0,
            client: None,
            says_first: false,
            marks: 0,
            history: VecDeque::new(),
            world,
        };
        actor.log_in();
        actor
    }

    /// Follows its script to the end.
    pub fn play(mut self) {
        let mut steps = 0;
        while self.world.goes_on(steps) {
            self.world.step();
            steps += 1;
            if let Err(gone) = acts::step(&mut self) {
                self.world.count(gone.name());
                self.forsake();
                self.log_in();
            }
        }
        self.leave();
    }

    fn log_in(&mut self) {
        self.session += 1;
        self.marks = 0;
        let mut defaults = self.world.defaults.clone();
        let mut connect = self.world.connect.clone();
        if self.world.has("startup") {
            connect = self.say_first(connect, &mut defaults);
        }
        self.says_first = defaults != self.world.defaults;
        self.note(format!("--- session {}", self.session));
        self.mailbox = Mailbox::new(&self.world.post);
        self.model = Model::new(&self.world.role, defaults);
        self.client = Some(connect.login().patience(PATIENCE));
        self.check_reported();
    }

    /// With settings in the startup packet, now and then: what a reset returns to.
    fn say_first(
        &mut self,
        mut connect: Connect,
        defaults: &mut BTreeMap<&'static str, String>,
    ) -> Connect {
        if self.chance.one_in(2) {
            let name = self.mark();
            connect = connect.parameter("application_name", &name);
            defaults.insert("application_name", name);
        }
        if self.chance.one_in(4) {
            connect = connect.parameter("TimeZone", "Asia/Tokyo");
            defaults.insert("TimeZone", "Asia/Tokyo".to_owned());
        }
        if self.chance.one_in(4) {
            let mark = self.mark();
            connect = connect.options(&format!("-c work_mem=4444kB -c app.y={mark}"));
            defaults.insert("work_mem", "4444kB".to_owned());
            defaults.insert("app.y", mark);
        }
        connect
    }

    /// Sends this, and expects nothing.
    pub fn send(&mut self, request: &Request) {
        let client = self.client.as_mut().expect("it has a session");
        // When the other side has ended, what it said before tells why.
        client.try_send_bytes(request.bytes()).ok();
    }

    /// Who it is, and in which session.
    pub fn name(&self) -> String {
        format!("{}.c{}.{}", self.world.tenant, self.number, self.session)
    }

    /// A text that nobody else says, and that it never said.
    pub fn mark(&mut self) -> String {
        self.marks += 1;
        format!("{}.{}", self.name(), self.marks)
    }

    /// A key for advisory locks that nobody else uses.
    pub fn key(&mut self) -> u32 {
        let number = u32::try_from(self.number).expect("few clients");
        let key = self.chance.below(4);
        1_000_000
            + number * 1_000_000
            + self.session * 10
            + u32::try_from(key).expect("it is small")
    }

    /// Remembers a step.
    pub fn note(&mut self, step: String) {
        if self.history.len() == SHOWN {
            self.history.pop_front();
        }
        self.history.push_back(step);
    }

    /// Others may get the locks that it holds from now on.
    pub fn holds_nothing_wanted(&self) {
        let name = self.name();
        self.world
            .holders
            .lock()
            .retain(|_, holder| holder.0 != name);
    }

    /// The session is over, and what it had with it.
    fn forsake(&mut self) {
        self.holds_nothing_wanted();
        self.client = None;
    }

    /// Ends the session as its script has it.
    fn leave(mut self) {
        self.holds_nothing_wanted();
        let Some(mut client) = self.client.take() else {
            return;
        };
        if self.chance.one_in(2) {
            client.reset();
        } else if client
            .try_send_bytes(Request::new().terminate().bytes())
            .is_ok()
        {
            client.rest();
        }
    }

    /// Says one statement.
    #[expect(clippy::needless_pass_by_value, reason = "it is made to be said")]
    pub fn say(&mut self, statement: Statement) -> Result<Vec<String>, Gone> {
        self.say_all(std::slice::from_ref(&statement))
    }

    /// Says several statements at once: in one Query, or before one Sync.
    pub fn say_all(&mut self, statements: &[Statement]) -> Result<Vec<String>, Gone> {
        let is_bound = statements.iter().any(|s| !s.params.is_empty());
        let is_simple = !is_bound && self.chance.one_in(2);
        let texts: Vec<_> = statements.iter().map(|s| s.sql.as_str()).collect();
        let request = if is_simple {
            self.model.kept.unnamed = Unnamed::Gone;
            Request::new().query(&texts.join("; "))
        } else {
            self.model.kept.unnamed = Unnamed::Other;
            let run = |request: Request, statement: &Statement| {
                let params: Vec<_> = statement.params.iter().map(String::as_str).collect();
                request.run(&statement.sql, &params)
            };
            statements.iter().fold(Request::new(), run).sync()
        };
        let way = if is_simple { "Q" } else { "P" };
        let params: Vec<_> = statements.iter().flat_map(|s| &s.params).collect();
        let label = format!("{way} {} {params:?}", texts.join("; "));
        self.converse(&request, &label, |model| model.run_batch(statements))
    }

    /// Says BEGIN and its like.
    pub fn control(&mut self, sql: &str, control: &Control) -> Outcome {
        let request = if self.chance.one_in(2) {
            self.model.kept.unnamed = Unnamed::Gone;
            Request::new().query(sql)
        } else {
            self.model.kept.unnamed = Unnamed::Other;
            Request::new().run(sql, &[]).sync()
        };
        self.converse(&request, sql, |model| model.control(control))
            .map(drop)
    }

    /// Sends this, reads to the next `ReadyForQuery`, and holds the answer against the model's.
    pub fn converse(
        &mut self,
        request: &Request,
        label: &str,
        effect: impl FnOnce(&mut Model) -> Vec<String>,
    ) -> Result<Vec<String>, Gone> {
        let label = label.replace(&question(), "all settings?");
        let was_idle = self.model.status == 'I';
        let listened = self.model.kept.listens.clone();
        self.note(format!("[{}] {label}", self.model.status));
        let expected = effect(&mut self.model);
        let notes = std::mem::take(&mut self.model.committed);
        self.world.post.send(&notes);
        self.send(request);
        let known = listened.union(&self.model.kept.listens).cloned().collect();
        let lines = self.read(&known, was_idle)?;
        let status = self.client.as_ref().expect("it has a session").status;
        assert!(
            matches(&expected, &lines) && status == self.model.status,
            "\nexpected {expected:#?} {}\nactual   {lines:#?} {status}",
            self.model.status
        );
        self.world.post.confirm(&notes);
        self.mailbox
            .listens(&self.world.post, &self.model.kept.listens);
        self.check_reported();
        self.is_trusted();
        Ok(lines)
    }

    fn read(&mut self, channels: &BTreeSet<String>, was_idle: bool) -> Result<Vec<String>, Gone> {
        let mut lines = Vec::new();
        let mut end = None;
        loop {
            let client = self.client.as_mut().expect("it has a session");
            let Some(frame) = client.next_or_end() else {
                let said = format!("the connection ended: {end:?} after {lines:?}");
                self.note(said.clone());
                return Err(end.unwrap_or_else(|| panic!("{said}")));
            };
            match frame.kind() {
                'Z' => return end.map_or(Ok(lines), Err),
                'A' => {
                    assert!(
                        was_idle && lines.is_empty() || self.model.status == 'I',
                        "a notification inside a transaction: {frame:?}"
                    );
                    self.hear(&frame, channels);
                }
                'E' if frame.fields().severity() == "FATAL" => {
                    end = Gone::of(frame.fields().code());
                    lines.push(format!("{frame:?}"));
                }
                'N' => self.is_told(&frame),
                // Refused before it could do anything: the session could go on, and this one doesn't.
                'E' if frame.fields().code() == "53400" => end = Some(Gone::Refused),
                _ => lines.extend(line(&frame)),
            }
        }
    }

    /// What `ParameterStatus` said last is what the settings are.
    fn check_reported(&self) {
        let client = self.client.as_ref().expect("it has a session");
        for setting in SETTINGS.iter().filter(|setting| setting.is_reported) {
            let told = client.parameters.get(setting.name).map(String::as_str);
            let is = self.model.value(setting.name);
            assert_eq!(
                told,
                Some(is.as_str()),
                "the last ParameterStatus for {}",
                setting.name
            );
        }
    }

    /// Nobody else got a lock that this session, which lives, holds.
    fn is_trusted(&self) {
        let name = self.name();
        let doubted = self.world.doubted.lock();
        let doubt = doubted.iter().find(|(_, holder)| *holder == name);
        assert_eq!(doubt, None, "another session got this session's lock");
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        self.world.is_over.store(true, Ordering::Relaxed);
        let steps: Vec<_> = self.history.iter().map(String::as_str).collect();
        eprintln!(
            "seed {}, pool_size {}, client {}, session {}; its last steps:\n{}",
            self.world.seed,
            self.world.pool_size,
            self.name(),
            self.session,
            steps.join("\n")
        );
    }
}

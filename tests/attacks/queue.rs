//! Locks that PostgreSQL takes before it checks who asks: the attacker is refused, but only when it
//! has got one, and everybody waits behind it meanwhile.

use crate::{
    attack::Tier,
    catalogue::cancel,
    door::Session,
    harness::Request,
    scene::{Scene, Stage},
    wire::End,
};
use std::time::Duration;

/// Sessions of the attacker's, each of which says one thing, and how the victim is held up by them.
#[derive(Clone, Copy)]
pub struct Queue {
    /// Said ahead of all; errors don't matter.
    pub before: &'static [&'static str],
    /// What each session says. All but the last are answered, if they don't wait for another, and
    /// keep what they have.
    pub sessions: &'static [&'static str],
    /// Who waits behind them.
    pub victim: Victim,
}

/// Who waits.
#[derive(Clone, Copy)]
pub enum Victim {
    /// The victim, who comes with a new connection.
    Comes,
    /// The victim, who says this where it is.
    Says(&'static [&'static str]),
    /// Who makes and changes tenants, on the victim's behalf.
    Operator(&'static str),
}

/// How long a statement may take until it waits, where PostgreSQL can't be asked.
const UNTIL_IT_WAITS: Duration = Duration::from_millis(300);

/// What a naive victim waits at least, before it counts as held up: more than its `lock_timeout`.
const NAIVE_PATIENCE: Duration = Duration::from_millis(1500);

/// What the victim of a tenant waits at most: many times what it takes to find who holds it up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether the victim is held up.
pub fn held_up(scene: &mut Scene<'_>, queue: &Queue) -> Option<String> {
    if scene.stage.attacker.turnstile.is_some() {
        return None;
    }
    for sql in queue.before {
        scene.say(sql);
    }
    scene.stage.send_victim_away();
    let mut sessions = line_up(scene, queue);
    let held = match queue.victim {
        Victim::Comes => scene.stage.victim_comes(),
        Victim::Says(statements) => scene.stage.victim_works(statements),
        Victim::Operator(sql) => scene.stage.operator_works(sql),
    };
    // A slow machine is no attack: it is one when somebody stands before the victim.
    let mut stands = sessions
        .last_mut()
        .is_some_and(|last| last.end_within(Duration::from_millis(1)) == End::Silent);
    stands |= !scene.stage.is_naive;
    for session in sessions.iter_mut().rev() {
        cancel(scene, &session.cancel_key());
        session.end_within(Duration::from_secs(1));
    }
    match held {
        Err(Held::Refused(what)) => Some(what),
        Err(Held::Silent(what)) => stands.then_some(what),
        Ok(()) => None,
    }
}

/// How the victim is held up.
pub enum Held {
    /// It is told so.
    Refused(String),
    /// It hears nothing.
    Silent(String),
}

fn line_up(scene: &mut Scene<'_>, queue: &Queue) -> Vec<Session> {
    let mut sessions = Vec::new();
    let mut watcher = scene.stage.is_naive.then(|| scene.stage.watcher());
    let is_statement = scene.stage.label == "statement";
    for (number, sql) in queue.sessions.iter().enumerate() {
        let Ok(mut session) = scene.stage.attacker.open() else {
            break;
        };
        // Those of a naive set-up would not wait for long.
        session.query("set lock_timeout = 0");
        let is_last = number + 1 == queue.sessions.len();
        let mut sql = scene.stage.fill(sql);
        if is_statement && !is_last {
            // There are no transactions: what keeps a lock must not end.
            sql = format!(
                "{}; select pg_sleep(600)",
                sql.trim_start_matches("begin; ")
            );
        }
        session.send(Request::new().query(&sql).bytes());
        if let Some(watcher) = &mut watcher {
            watcher.until_it_stands(&mut session);
        } else {
            session.end_within(UNTIL_IT_WAITS);
        }
        sessions.push(session);
    }
    sessions
}

/// Asks PostgreSQL for locks on a connection that stands, as no other may come.
pub struct Watcher {
    admin: crate::harness::Client,
}

impl Watcher {
    /// Waits until a session is answered, waits for a lock or has one that shuts others out.
    fn until_it_stands(&mut self, session: &mut Session) {
        let (pid, _) = session.cancel_key();
        let locks = Self::locks(pid);
        for _ in 0..200 {
            let is_silent = session.end_within(Duration::from_millis(50)) == End::Silent;
            if !is_silent || self.admin.value(&locks) != "0" {
                return;
            }
        }
    }

    fn locks(pid: i32) -> String {
        format!(
            "select count(*) from pg_lock_status() where pid = {pid} and (not granted \
                or database = 0 and mode = 'AccessExclusiveLock')"
        )
    }
}

impl Stage {
    /// A connection that has looked already: what it needs of the catalogue it knows.
    fn watcher(&self) -> Watcher {
        let mut admin = self.endpoint().admin();
        admin.value(&Watcher::locks(0));
        Watcher { admin }
    }

    /// The victim has no connections that are idle, so it needs new ones. Slots are no tenant's.
    fn send_victim_away(&mut self) {
        self.forget_visitor();
        if self.is_naive || self.tier == Tier::Shared {
            return;
        }
        let (login, pid) = (self.value("login"), self.value("pid"));
        self.endpoint().admin().exec(&format!(
            "select pg_terminate_backend(pid, 1000) from pg_stat_activity \
                where usename = '{login}' and pid <> {pid} and state = 'idle'"
        ));
    }

    fn patience(&self) -> Duration {
        if self.is_naive {
            NAIVE_PATIENCE
        } else {
            PATIENCE
        }
    }

    /// Two sessions at once need two connections. In session mode one is enough, and where tenants
    /// share logins there are no more.
    fn victim_comes(&self) -> Result<(), Held> {
        let door = self.victim.clone().patience(self.patience());
        let mut sessions = Vec::new();
        let is_one = self.label == "session" || self.tier == Tier::Shared;
        for _ in 0..if is_one { 1 } else { 2 } {
            let come = door.open().map_err(|answer| {
                let what = format!("the victim, who comes, gets {answer:?}");
                match answer.end {
                    End::Silent => Held::Silent(what),
                    End::Ready | End::Closed => Held::Refused(what),
                }
            });
            sessions.push(come?);
        }
        for session in &mut sessions {
            session.send(
                Request::new()
                    .query("select lower('CAME'), pg_sleep(0.1)")
                    .bytes(),
            );
        }
        for session in &mut sessions {
            let answer = session.until(|frame| frame.tag == b'Z');
            held(&answer, "a new session of the victim")?;
        }
        Ok(())
    }

    fn victim_works(&mut self, statements: &[&str]) -> Result<(), Held> {
        for sql in statements {
            let sql = self.fill(sql);
            let patience = self.patience();
            let sitter = self.sitter();
            sitter.send(Request::new().query(&sql).bytes());
            let answer = sitter.until_within(patience, |frame| frame.tag == b'Z');
            held(&answer, &format!("the victim's {sql:?}"))?;
        }
        Ok(())
    }

    fn operator_works(&self, sql: &str) -> Result<(), Held> {
        let mut admin = self.endpoint().admin_of(&self.value("db"));
        // Less than the harness's own patience.
        let limit = self.patience().min(Duration::from_secs(10)).as_millis();
        admin.exec(&format!("set lock_timeout = {limit}"));
        let frames = admin.query(&self.fill(sql));
        let answer = crate::wire::Answer {
            frames,
            end: End::Ready,
        };
        held(&answer, &format!("the operator's {sql:?}"))
    }
}

/// Whether an answer says that somebody was held up. Another error is no harm of a lock's.
fn held(answer: &crate::wire::Answer, who: &str) -> Result<(), Held> {
    let what = || format!("{who} gets {answer:?}");
    match answer.end {
        End::Silent => Err(Held::Silent(what())),
        End::Closed => Err(Held::Refused(what())),
        End::Ready if answer.code() == "55P03" => Err(Held::Refused(what())),
        End::Ready => Ok(()),
    }
}

//! How somebody comes in, and what they hear.

use crate::{
    harness::{
        connect::V3_0,
        frames::Frame,
        request::{Request, startup},
    },
    wire::{Answer, End, PATIENCE, Wire},
};
use std::{cell::RefCell, net::IpAddr, rc::Rc, time::Duration};

/// Where and as whom somebody logs in, and what a naive application says first.
#[derive(Clone)]
pub struct Door {
    /// The TCP port on loopback.
    pub port: u16,
    /// Startup parameters; the first is the user.
    pub parameters: Vec<(String, String)>,
    /// The password or key.
    pub password: String,
    /// The address it comes from, where it is not the usual one.
    pub from: Option<IpAddr>,
    /// How long each answer may take.
    pub patience: Duration,
    /// Said at the start of each session.
    pub greeting: Vec<String>,
    /// One connection that all who come by this door use in turns: a pooler that resets nothing.
    pub turnstile: Option<Rc<RefCell<Wire>>>,
}

impl Door {
    /// A door for this user.
    pub fn new(port: u16, user: &str, database: Option<&str>, password: &str) -> Self {
        let mut parameters = vec![("user".to_owned(), user.to_owned())];
        parameters.extend(database.map(|database| ("database".to_owned(), database.to_owned())));
        Self {
            port,
            parameters,
            password: password.to_owned(),
            from: None,
            patience: PATIENCE,
            greeting: Vec::new(),
            turnstile: None,
        }
    }

    /// With one more startup parameter, in place of one with this name.
    pub fn parameter(mut self, name: &str, value: &str) -> Self {
        self.parameters.retain(|(known, _)| known != name);
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Said at the start of each session.
    pub fn greeting(mut self, statements: &[String]) -> Self {
        self.greeting = statements.to_vec();
        self
    }

    /// With another patience.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The startup packet.
    pub fn packet(&self) -> Vec<u8> {
        let pairs = self
            .parameters
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()));
        startup(V3_0, &pairs.collect::<Vec<_>>())
    }

    /// Sends bytes on a new connection and hears all that comes.
    pub fn knock(&self, bytes: &[u8]) -> Vec<Frame> {
        let Ok(mut wire) = Wire::open(self.port, self.from, self.patience) else {
            return Vec::new();
        };
        wire.send(bytes);
        wire.hang_up();
        // Not all of it has the shape of a message.
        let body = wire.raw_rest();
        vec![Frame { tag: b'?', body }]
    }

    /// Comes in; what was said instead is the error.
    pub fn open(&self) -> Result<Session, Answer> {
        self.open_with(&self.packet())
    }

    /// Comes in with another startup packet.
    pub fn open_with(&self, packet: &[u8]) -> Result<Session, Answer> {
        let wire = if let Some(shared) = &self.turnstile {
            Rc::clone(shared)
        } else {
            let closed = |_| Answer {
                frames: Vec::new(),
                end: End::Closed,
            };
            let mut wire = Wire::open(self.port, self.from, self.patience).map_err(closed)?;
            wire.log_in(packet, &self.password)?;
            Rc::new(RefCell::new(wire))
        };
        let is_shared = self.turnstile.is_some();
        let mut session = Session {
            wire,
            heard: Vec::new(),
            entry: Vec::new(),
        };
        for statement in &self.greeting {
            session.query(statement);
        }
        if is_shared {
            session.entry.clone_from(&self.greeting);
        }
        Ok(session)
    }
}

/// Somebody who came in.
pub struct Session {
    wire: Rc<RefCell<Wire>>,
    /// All messages that were heard.
    pub heard: Vec<Frame>,
    /// Said ahead of each statement, where others use the connection in between.
    entry: Vec<String>,
}

impl Session {
    /// Sends bytes and reads up to ReadyForQuery.
    pub fn ask(&mut self, bytes: &[u8]) -> Answer {
        for statement in &self.entry {
            let mut wire = self.wire.borrow_mut();
            wire.send(Request::new().query(statement).bytes());
            let patience = wire.patience;
            wire.until(patience, |frame| frame.tag == b'Z');
        }
        self.wire.borrow_mut().send(bytes);
        self.until(|frame| frame.tag == b'Z')
    }

    /// A simple query.
    pub fn query(&mut self, sql: &str) -> Answer {
        self.ask(Request::new().query(sql).bytes())
    }

    /// A statement with a name, by the extended protocol.
    pub fn prepared(&mut self, name: &str, sql: &str) -> Answer {
        let request = Request::new().parse(name, sql).run_prepared(name, &[]);
        self.ask(request.sync().bytes())
    }

    /// Reads up to the message for which this holds.
    pub fn until(&mut self, is_last: impl Fn(&Frame) -> bool) -> Answer {
        let mut wire = self.wire.borrow_mut();
        let patience = wire.patience;
        let answer = wire.until(patience, is_last);
        drop(wire);
        self.heard.extend(answer.frames.iter().cloned());
        answer
    }

    /// The same, in this time.
    pub fn until_within(&mut self, time: Duration, is_last: impl Fn(&Frame) -> bool) -> Answer {
        let answer = self.wire.borrow_mut().until(time, is_last);
        self.heard.extend(answer.frames.iter().cloned());
        answer
    }

    /// How what comes up to ReadyForQuery ends in this time.
    pub fn end_within(&mut self, time: Duration) -> End {
        self.until_within(time, |frame| frame.tag == b'Z').end
    }

    /// What comes up to ReadyForQuery, when it comes in this time.
    pub fn within(&mut self, time: Duration) -> Option<Answer> {
        let answer = self
            .wire
            .borrow_mut()
            .until(time, |frame| frame.tag == b'Z');
        (answer.end == End::Ready).then_some(answer)
    }

    /// Sends and does not wait.
    pub fn send(&mut self, bytes: &[u8]) {
        self.wire.borrow_mut().send(bytes);
    }

    /// All answers are read, whatever was sent.
    pub fn catch_up(&mut self) {
        self.send(Request::new().message(b'Q', b"\0").bytes());
        self.until(|frame| frame.tag == b'I');
        self.until(|frame| frame.tag == b'Z');
    }

    /// Whether a transaction is open, that has not failed.
    pub fn status(&self) -> u8 {
        self.wire.borrow().status
    }

    /// The cancel key.
    pub fn cancel_key(&self) -> (i32, Vec<u8>) {
        let wire = self.wire.borrow();
        (wire.pid, wire.secret.clone())
    }

    /// Whether this was heard, as it is or in hexadecimal.
    pub fn has_heard(&self, mark: &str) -> bool {
        let hex = mark
            .bytes()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let has =
            |body: &[u8], mark: &str| body.windows(mark.len()).any(|part| part == mark.as_bytes());
        let mut heard = self.heard.iter();
        heard.any(|frame| has(&frame.body, mark) || has(&frame.body, &hex))
    }
}

//! Every notification that was sent, and what each listener must receive of them.

use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::atomic::{AtomicU64, Ordering},
};

/// The notifications of one database.
#[derive(Default)]
pub struct Post {
    clock: AtomicU64,
    letters: Mutex<Letters>,
}

#[derive(Default)]
struct Letters {
    all: Vec<Letter>,
    by_payload: HashMap<String, usize>,
}

/// One notification.
struct Letter {
    channel: String,
    payload: String,
    /// Its transaction was not committed before this time.
    sent: u64,
    /// It was committed by this time. `None`: perhaps it never was.
    committed: Option<u64>,
}

impl Post {
    /// The time, which goes on with each look.
    pub fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// A transaction with these is about to commit.
    pub fn send(&self, notes: &[(String, String)]) {
        let sent = self.now();
        let mut letters = self.letters.lock();
        for (channel, payload) in notes {
            let at = letters.all.len();
            letters.by_payload.insert(payload.clone(), at);
            letters.all.push(Letter {
                channel: channel.clone(),
                payload: payload.clone(),
                sent,
                committed: None,
            });
        }
    }

    /// That transaction was committed.
    pub fn confirm(&self, notes: &[(String, String)]) {
        let now = self.now();
        let mut letters = self.letters.lock();
        for (_, payload) in notes {
            let at = letters.by_payload[payload];
            letters.all[at].committed = Some(now);
        }
    }

    /// How many were sent.
    pub fn count(&self) -> usize {
        self.letters.lock().all.len()
    }
}

/// What one session has received, and since when it listens to what.
pub struct Mailbox {
    since_login: u64,
    since: BTreeMap<String, u64>,
    received: BTreeSet<String>,
    /// The last from each sender.
    last: BTreeMap<String, u64>,
    /// Letters before this one are done with.
    checked: usize,
}

impl Mailbox {
    /// Of a session that logs in now.
    pub fn new(post: &Post) -> Self {
        Self {
            since_login: post.now(),
            since: BTreeMap::new(),
            received: BTreeSet::new(),
            last: BTreeMap::new(),
            checked: post.count(),
        }
    }

    /// The session now listens to exactly these.
    pub fn listens(&mut self, post: &Post, channels: &BTreeSet<String>) {
        self.since.retain(|channel, _| channels.contains(channel));
        for channel in channels {
            let since = self.since.entry(channel.clone());
            since.or_insert_with(|| post.now());
        }
    }

    /// Takes a notification in, or says what is wrong with it.
    pub fn receive(&mut self, post: &Post, channel: &str, payload: &str) -> Result<(), String> {
        let letters = post.letters.lock();
        let Some(letter) = letters.by_payload.get(payload) else {
            return Err("nobody of this tenant sent it".to_owned());
        };
        let letter = &letters.all[*letter];
        if letter.channel != channel {
            return Err(format!("it was sent to {}", letter.channel));
        }
        if letter.committed.is_some_and(|at| at < self.since_login) {
            return Err("it is older than the session".to_owned());
        }
        let (sender, number) = payload.rsplit_once('.').ok_or("it has no number")?;
        let number = number.parse().map_err(|_error| "it has no number")?;
        let last = self.last.insert(sender.to_owned(), number);
        if last.is_some_and(|last| last >= number) {
            return Err(format!("it comes after number {last:?} of its sender"));
        }
        self.received.insert(payload.to_owned());
        Ok(())
    }

    /// What was surely sent while the session listened and has not been received.
    pub fn missing(&self, post: &Post) -> Vec<String> {
        let letters = post.letters.lock();
        let is_due = |letter: &&Letter| {
            let since = self.since.get(&letter.channel);
            letter.committed.is_some() && since.is_some_and(|since| *since < letter.sent)
        };
        let due = letters.all[self.checked..].iter().filter(is_due);
        let missing = due.filter(|letter| !self.received.contains(&letter.payload));
        missing.map(|letter| letter.payload.clone()).collect()
    }

    /// All that was due has come: what was sent before is done with.
    pub fn settle(&mut self, post: &Post) {
        let letters = post.letters.lock();
        let open = letters.all[self.checked..].iter();
        let done = open.take_while(|letter| {
            letter.committed.is_some() && {
                let since = self.since.get(&letter.channel);
                since.is_none_or(|since| *since >= letter.sent)
                    || self.received.contains(&letter.payload)
            }
        });
        self.checked += done.count();
    }

    /// The session was told that notifications may have been missed.
    pub fn forgive(&mut self, post: &Post) {
        self.checked = post.count();
    }

    /// Whether the session listens to anything.
    pub fn is_open(&self) -> bool {
        !self.since.is_empty()
    }
}

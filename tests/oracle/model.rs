//! What one session is, as PostgreSQL keeps it: what a rollback undoes, and what it leaves.

use super::{
    setting::SETTINGS,
    statement::{Answer, Code, Statement},
    text::Text,
};
use std::collections::{BTreeMap, BTreeSet};

/// A session.
#[derive(Debug, Clone)]
pub struct Model {
    /// The tenant's role, which the session logs in as.
    pub role: String,
    /// What settings return to.
    pub defaults: BTreeMap<&'static str, String>,
    /// What a rollback undoes.
    pub now: Undone,
    /// What a rollback leaves.
    pub kept: Kept,
    /// The status byte.
    pub status: char,
    /// The isolation level of the transaction.
    pub isolation: String,
    /// How everything was at BEGIN and at each savepoint.
    before: Vec<(String, Undone)>,
    /// NOTIFY that the last commit sent.
    pub committed: Vec<(String, String)>,
    next_cursor: u32,
}

/// What a rollback undoes.
#[derive(Debug, Clone, Default)]
pub struct Undone {
    /// Settings, the role among them.
    pub settings: BTreeMap<&'static str, Value>,
    /// Temporary tables.
    pub temps: BTreeMap<String, Temp>,
    /// Held cursors, by their number.
    pub cursors: BTreeMap<String, u32>,
    /// LISTEN and UNLISTEN of this transaction.
    pub wishes: Vec<Wish>,
    /// NOTIFY of this transaction: channel and payload.
    pub notes: Vec<(String, String)>,
    /// Advisory locks of this transaction.
    pub locks: Locks,
}

/// Held advisory locks: key and whether shared, and how many times.
pub type Locks = BTreeMap<(u32, bool), u32>;

/// A setting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Value {
    session: Option<String>,
    local: Option<String>,
}

/// A temporary table.
#[derive(Debug, Clone, Default)]
pub struct Temp {
    /// Its rows.
    pub rows: Vec<String>,
    /// What becomes of it at COMMIT.
    pub on_commit: OnCommit,
}

/// `ON COMMIT`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnCommit {
    /// `PRESERVE ROWS`.
    #[default]
    Preserve,
    /// `DELETE ROWS`.
    Delete,
    /// `DROP`.
    Drop,
}

/// What becomes effective at COMMIT.
#[derive(Debug, Clone)]
pub enum Wish {
    /// `LISTEN`.
    Listen(String),
    /// `UNLISTEN`.
    Unlisten(String),
    /// `UNLISTEN *`.
    UnlistenAll,
}

/// What a rollback leaves.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// Named statements, of SQL and of the protocol: one space of names.
    pub statements: BTreeMap<String, Text>,
    /// The unnamed statement.
    pub unnamed: Unnamed,
    /// Session-level advisory locks.
    pub locks: Locks,
    /// The rows that cursors have left to give; none any more when it is closed.
    pub cursors: BTreeMap<u32, Vec<String>>,
    /// Channels.
    pub listens: BTreeSet<String>,
    /// What nextval returned last, by sequence.
    pub sequences: BTreeMap<&'static str, String>,
    /// The sequence of the last nextval.
    pub last_sequence: Option<&'static str>,
}

/// The unnamed statement.
#[derive(Debug, Clone, Default)]
pub enum Unnamed {
    /// There is none.
    #[default]
    Gone,
    /// This one.
    Known(Text),
    /// One that is not asked for again.
    Other,
}

impl Model {
    /// A new session.
    pub fn new(role: &str, defaults: BTreeMap<&'static str, String>) -> Self {
        let mut model = Self {
            role: role.to_owned(),
            defaults,
            now: Undone::default(),
            kept: Kept::default(),
            status: 'I',
            isolation: String::new(),
            before: Vec::new(),
            committed: Vec::new(),
            next_cursor: 0,
        };
        model.isolation = model.value("default_transaction_isolation");
        model
    }

    /// The value of a setting.
    pub fn value(&self, name: &str) -> String {
        let value = self.now.settings.get(name);
        let own = value.and_then(|value| value.local.as_ref().or(value.session.as_ref()));
        own.or_else(|| self.defaults.get(name))
            .cloned()
            .unwrap_or_default()
    }

    /// `SET`, or `SET LOCAL`.
    pub fn set(&mut self, name: &'static str, to: &str, is_local: bool) {
        let value = self.now.settings.entry(name).or_default();
        if is_local {
            value.local = Some(to.to_owned());
        } else {
            *value = Value {
                session: Some(to.to_owned()),
                local: None,
            };
        }
    }

    /// `RESET`.
    pub fn reset(&mut self, name: &'static str) {
        self.now.settings.remove(name);
    }

    /// `RESET ALL`, which leaves the role.
    pub fn reset_all(&mut self) {
        self.now.settings.retain(|name, _| *name == "role");
    }

    /// Who the client is.
    pub fn current_user(&self) -> String {
        match self.value("role").as_str() {
            "none" => self.role.clone(),
            role => role.to_owned(),
        }
    }

    /// Whether the role is the one that owns everything.
    pub fn is_owner(&self) -> bool {
        self.value("role") == "none"
    }

    /// The answer to the question about all settings.
    pub fn all_settings(&self) -> String {
        let mut values: Vec<_> = SETTINGS.iter().map(|s| self.value(s.name)).collect();
        values.extend([self.value("role"), self.current_user()]);
        values.join("|")
    }

    /// The number of a cursor that is made now.
    pub fn open_cursor(&mut self, name: &str, rows: Vec<String>) {
        self.next_cursor += 1;
        self.kept.cursors.insert(self.next_cursor, rows);
        self.now.cursors.insert(name.to_owned(), self.next_cursor);
    }

    /// The rows that an open cursor has left.
    pub fn cursor(&mut self, name: &str) -> Option<&mut Vec<String>> {
        let number = self.now.cursors.get(name)?;
        self.kept.cursors.get_mut(number)
    }

    /// `DISCARD ALL`, outside a transaction.
    pub fn discard_all(&mut self) {
        let unnamed = std::mem::take(&mut self.kept.unnamed);
        self.now = Undone::default();
        self.kept = Kept {
            unnamed,
            ..Kept::default()
        };
    }

    /// Whether anything is there that no setting is.
    pub fn holds_anything(&self) -> bool {
        let kept = &self.kept;
        let cursors = self.now.cursors.values();
        !self.now.temps.is_empty()
            || cursors.into_iter().any(|n| kept.cursors.contains_key(n))
            || !kept.locks.is_empty()
    }

    /// The lines of the answer to one statement.
    pub fn run(&mut self, statement: &Statement) -> Vec<String> {
        self.run_batch(std::slice::from_ref(statement))
    }

    /// The lines of the answer to several in one Query, or before one Sync.
    pub fn run_batch(&mut self, statements: &[Statement]) -> Vec<String> {
        if self.status == 'E' {
            return vec!["error 25P02".to_owned()];
        }
        let is_implicit = self.status == 'I';
        let before = self.now.clone();
        if is_implicit {
            self.isolation = self.value("default_transaction_isolation");
        }
        let mut lines = Vec::new();
        for statement in statements {
            match statement.take_effect(self) {
                Ok(answer) => lines.extend(show(&answer)),
                Err(code) => {
                    lines.push(format!("error {code}"));
                    if is_implicit {
                        self.now = before;
                    } else {
                        self.fail();
                    }
                    return lines;
                }
            }
        }
        if is_implicit {
            self.commit();
        }
        lines
    }

    fn commit(&mut self) {
        for value in self.now.settings.values_mut() {
            value.local = None;
        }
        self.now.settings.retain(|_, v| v.session.is_some());
        self.now.temps.retain(|_, t| t.on_commit != OnCommit::Drop);
        for temp in self.now.temps.values_mut() {
            if temp.on_commit == OnCommit::Delete {
                temp.rows.clear();
            }
        }
        for wish in std::mem::take(&mut self.now.wishes) {
            match wish {
                Wish::Listen(channel) => drop(self.kept.listens.insert(channel)),
                Wish::Unlisten(channel) => drop(self.kept.listens.remove(&channel)),
                Wish::UnlistenAll => self.kept.listens.clear(),
            }
        }
        self.committed = std::mem::take(&mut self.now.notes);
        self.now.locks.clear();
        self.before.clear();
        self.status = 'I';
    }

    /// An error: an open transaction is over at once, back to its last savepoint.
    pub fn fail(&mut self) {
        if self.status == 'T' {
            self.status = 'E';
            if let Some((_, before)) = self.before.last() {
                self.now = before.clone();
            }
        }
    }

    /// BEGIN and its like.
    pub fn control(&mut self, control: &Control) -> Vec<String> {
        let line = match self.controlled(control) {
            Ok(tag) => format!("tag {tag}"),
            Err(code) => {
                self.fail();
                format!("error {code}")
            }
        };
        vec![line]
    }

    fn controlled(&mut self, control: &Control) -> Result<&'static str, Code> {
        let is_exit = !matches!(
            control,
            Control::Begin | Control::Savepoint(_) | Control::Release(_)
        );
        match (control, self.status) {
            (_, 'E') if !is_exit => Err("25P02"),
            (Control::Begin, 'I') => {
                self.isolation = self.value("default_transaction_isolation");
                self.before = vec![(String::new(), self.now.clone())];
                self.status = 'T';
                Ok("BEGIN")
            }
            (Control::Begin, _) => Ok("BEGIN"),
            (Control::Commit, 'E') | (Control::Rollback, _) => {
                if let Some((_, before)) = self.before.drain(..).next() {
                    self.now = before;
                }
                self.status = 'I';
                Ok("ROLLBACK")
            }
            (Control::Commit, _) => {
                self.commit();
                Ok("COMMIT")
            }
            (Control::Savepoint(_) | Control::Release(_) | Control::RollbackTo(_), 'I') => {
                Err("25P01")
            }
            (Control::Savepoint(name), _) => {
                self.before.push((name.clone(), self.now.clone()));
                Ok("SAVEPOINT")
            }
            (Control::Release(name), _) => {
                let at = self.savepoint(name)?;
                self.before.truncate(at);
                Ok("RELEASE")
            }
            (Control::RollbackTo(name), _) => {
                let at = self.savepoint(name)?;
                self.before.truncate(at + 1);
                self.now = self.before[at].1.clone();
                self.status = 'T';
                Ok("ROLLBACK")
            }
        }
    }

    fn savepoint(&self, name: &str) -> Result<usize, Code> {
        self.before
            .iter()
            .rposition(|(n, _)| n == name)
            .ok_or("3B001")
    }
}

/// A command of transactions.
#[derive(Debug, Clone)]
pub enum Control {
    /// `BEGIN`.
    Begin,
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`.
    Rollback,
    /// `SAVEPOINT`.
    Savepoint(String),
    /// `RELEASE`.
    Release(String),
    /// `ROLLBACK TO`.
    RollbackTo(String),
}

impl Model {
    /// Which of the two tables of one name the search path finds.
    pub fn placed(&self) -> &'static str {
        if self.value("search_path").starts_with("alt") {
            "alt"
        } else {
            "main"
        }
    }

    /// The rows of a temporary table, or of the permanent one that it would hide.
    pub fn marks_of(&self, table: &str) -> Result<Vec<String>, Code> {
        match self.now.temps.get(table) {
            Some(temp) => {
                let mut rows = temp.rows.clone();
                rows.sort_unstable();
                Ok(rows)
            }
            None if table == "shadowed" => Ok(vec!["permanent".to_owned()]),
            None => Err("42P01"),
        }
    }
}

/// As an actor notes the answers of a server.
fn show(answer: &Answer) -> Vec<String> {
    let rows = answer.rows.iter().map(|row| format!("row {row}"));
    rows.chain([format!("tag {}", answer.tag)]).collect()
}

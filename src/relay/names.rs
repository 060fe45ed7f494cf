//! A client's own names of prepared statements.

use crate::{
    sql::clipped,
    upstream::{Name, Statement},
};
use std::{collections::HashMap, sync::Arc};

/// Named statements of one client at the same time; more are refused.
const NAMES_MAX: usize = 10_000;

/// Bytes of all named statements of one client, names included; more are refused.
const NAMES_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Client names to shared statements. Takes no memory until a statement is named. As in PostgreSQL,
/// names are the same when their first 63 bytes are.
#[derive(Default)]
pub struct Names {
    by_name: Option<Box<ByName>>,
    /// Bytes of all names and statements in it.
    bytes: usize,
    /// How many names were given.
    given: u64,
}

/// Statements, and the how-manieth name each was given.
type ByName = HashMap<Name, (Arc<Statement>, u64)>;

fn bytes_of(name: &[u8], statement: &Statement) -> usize {
    name.len() + statement.tail().len()
}

impl Names {
    /// The statement of this name.
    #[inline]
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        let (statement, _) = self.by_name.as_ref()?.get(clipped(name))?;
        Some(statement)
    }

    /// The name as it is kept, and its statement.
    #[inline]
    pub fn entry(&self, name: &[u8]) -> Option<(&Name, &Arc<Statement>)> {
        let (name, (statement, _)) = self.by_name.as_ref()?.get_key_value(clipped(name))?;
        Some((name, statement))
    }

    /// Gives a statement a name, which [`Names::key`] has made.
    pub fn insert(&mut self, name: Name, statement: Arc<Statement>) {
        self.remove(&name);
        self.bytes += bytes_of(&name, &statement);
        self.given += 1;
        let names = self.by_name.get_or_insert_default();
        names.insert(name, (statement, self.given));
    }

    /// All of them, as they were named one after the other.
    pub fn in_order(&self) -> Vec<(&Name, &Arc<Statement>)> {
        let names = self.by_name.iter().flat_map(|names| names.iter());
        let mut all: Vec<_> = names.collect();
        all.sort_unstable_by_key(|(_, (_, given))| *given);
        all.into_iter()
            .map(|(name, (statement, _))| (name, statement))
            .collect()
    }

    /// A name as it is kept.
    pub fn key(name: &[u8]) -> Name {
        clipped(name).into()
    }

    /// Takes a name away; returns what it stood for.
    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<Statement>> {
        let (statement, _) = self.by_name.as_mut()?.remove(clipped(name))?;
        self.bytes -= bytes_of(clipped(name), &statement);
        Some(statement)
    }

    /// Takes all names away but those that are to stay.
    pub fn retain(&mut self, stays: impl Fn(&[u8]) -> bool) {
        if let Some(names) = &mut self.by_name {
            names.retain(|name, _| stays(name));
            self.bytes = names
                .iter()
                .map(|(name, (statement, _))| bytes_of(name, statement))
                .sum();
            if names.is_empty() {
                self.by_name = None;
            }
        }
    }

    /// Whether a statement of so many bytes still has room.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        let count = self.by_name.as_ref().map_or(0, |names| names.len());
        count < NAMES_MAX && self.bytes + bytes <= NAMES_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{Statements, Suspicion};

    #[test]
    fn names_are_cut_as_postgresql_does() {
        let statement = Statements::default().intern(0, b"select 1\0\0\0", |_| Suspicion::NONE);
        let mut names = Names::default();
        let long = [b'n'; 70];
        names.insert(Names::key(&long), statement);
        assert!(names.get(&long[..64]).is_some() && names.get(&long[..62]).is_none());
        assert!(names.remove(&long).is_some());
        assert_eq!(names.bytes, 0);
    }
}

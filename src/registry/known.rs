//! All served tenants as rows: for a start without the registry, and to know whom there is.

use super::{
    freshness::{Freshness, Moment},
    load::Rows,
};
use parking_lot::RwLock;
use std::collections::HashMap;

/// Tenants that are kept: about 150 MB. Those beyond are looked up one by one.
const KNOWN_MAX: usize = 50_000;

/// A tenant's rows as JSON, some 1.5 kB.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) began: Moment,
    pub(super) json: Box<[u8]>,
}

impl Row {
    pub(super) fn rows(&self) -> Option<Rows> {
        serde_json::from_slice(&self.json).ok()
    }
}

/// All served tenants as rows.
#[derive(Debug, Default)]
pub(super) struct Known(RwLock<Inner>);

#[derive(Debug, Default)]
struct Inner {
    rows: HashMap<Box<str>, Row>,
    /// Everybody is in it.
    is_complete: bool,
}

impl Known {
    pub(super) fn get(&self, id: &str) -> Option<Row> {
        self.0.read().rows.get(id).cloned()
    }

    pub(super) fn count(&self) -> usize {
        self.0.read().rows.len()
    }

    pub(super) fn is_complete(&self) -> bool {
        self.0.read().is_complete
    }

    /// Whether there is none of that name, for all that is known.
    pub(super) fn excludes(&self, id: &str) -> bool {
        let inner = self.0.read();
        inner.is_complete && !inner.rows.contains_key(id)
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.0.read().rows.contains_key(id)
    }

    /// Takes over what a look-up found, unless a later one has been here.
    pub(super) fn put(&self, id: &str, rows: Option<&Rows>, began: Moment) {
        let json = rows.and_then(|rows| serde_json::to_vec(rows).ok());
        let mut inner = self.0.write();
        if inner.rows.get(id).is_some_and(|row| row.began > began) {
            return;
        }
        match json {
            None => {
                inner.rows.remove(id);
            }
            Some(_) if inner.rows.len() >= KNOWN_MAX && !inner.rows.contains_key(id) => {
                inner.is_complete = false;
            }
            Some(json) => {
                let json = json.into_boxed_slice();
                inner.rows.insert(id.into(), Row { began, json });
            }
        }
    }

    /// All tenants were looked up, from that moment on: who was not found is gone.
    pub(super) fn complete(&self, began: Moment) {
        let mut inner = self.0.write();
        inner.rows.retain(|_, row| row.began >= began);
        inner.is_complete = inner.rows.len() < KNOWN_MAX;
    }

    /// Changes may have been missed.
    pub(super) fn lose(&self) {
        self.0.write().is_complete = false;
    }

    /// Takes over what a file remembers, where nothing better is known.
    pub(super) fn remember(&self, rows: Vec<(Box<str>, Box<[u8]>)>) {
        let mut inner = self.0.write();
        for (id, json) in rows.into_iter().take(KNOWN_MAX) {
            let began = Moment::BEFORE_ALL;
            inner.rows.entry(id).or_insert(Row { began, json });
        }
    }

    /// Those that nothing is known against, for the file.
    pub(super) fn copy(&self, freshness: &Freshness) -> Vec<(Box<str>, Box<[u8]>)> {
        let inner = self.0.read();
        let servable = inner
            .rows
            .iter()
            .filter(|(id, row)| freshness.may_serve(id, row.began));
        servable
            .map(|(id, row)| (id.clone(), row.json.clone()))
            .collect()
    }
}

//! Proving that the log of events is whole.

use super::{Actor, Control, ControlError, Role};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

/// Events that are read with one query.
const BATCH: i64 = 1000;

/// Where the log is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Break {
    /// Numbers are missing before this event: events were removed.
    Gap {
        /// The first event behind the gap.
        seq: i64,
        /// The number that was expected.
        expected: i64,
    },
    /// The event does not follow from the one before it: that one was changed or replaced.
    Chain {
        /// The event.
        seq: i64,
    },
    /// The event is not what was hashed: it was changed.
    Changed {
        /// The event.
        seq: i64,
    },
    /// The head that was noted earlier is not there, or another: the end was removed or rewritten.
    Head {
        /// The number that was noted.
        seq: i64,
    },
}

/// The end of the log, to be noted elsewhere: whoever can rewrite the whole log can't rewrite that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Head {
    /// The newest event's number.
    pub seq: i64,
    /// Its hash, hexadecimal.
    pub hash: String,
}

/// What the verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Events that were looked at.
    pub events: u64,
    /// The end of the log; `None` when it is empty.
    pub head: Option<Head>,
    /// The first break, if there is one.
    pub broken: Option<Break>,
}

impl Control {
    /// Recomputes the chain of events from the first to the last. With a `noted` head it also tells
    /// whether that event is still there: without one, a removed end can't show.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn verify_audit(
        &self,
        actor: &Actor,
        noted: Option<&Head>,
    ) -> Result<Verified, ControlError> {
        actor.may_operate(Role::Viewer)?;
        let mut chain = Chain::default();
        loop {
            let rows = sqlx::query(
                "SELECT seq, id::text, at_us::text, coalesce(tenant, ''), kind, actor, address,
                        changes::text, facts::text, previous, hash
                 FROM pgusher.event WHERE seq > $1 ORDER BY seq LIMIT $2",
            )
            .bind(chain.seq)
            .bind(BATCH)
            .fetch_all(&self.registry.pool)
            .await?;
            if rows.is_empty() || chain.broken.is_some() {
                break;
            }
            for row in &rows {
                let mut fields = vec![row.try_get::<i64, _>(0)?.to_string()];
                for index in 1..9 {
                    fields.push(row.try_get(index)?);
                }
                let link = Link {
                    seq: row.try_get(0)?,
                    fields,
                    previous: row.try_get(9)?,
                    hash: row.try_get(10)?,
                };
                chain.add(&link, noted);
            }
        }
        Ok(chain.end(noted))
    }
}

/// One event, as it is hashed.
struct Link {
    seq: i64,
    fields: Vec<String>,
    previous: Vec<u8>,
    hash: Vec<u8>,
}

/// The chain as far as it was followed.
#[derive(Default)]
struct Chain {
    events: u64,
    seq: i64,
    hash: Vec<u8>,
    met_noted: bool,
    broken: Option<Break>,
}

impl Chain {
    fn add(&mut self, link: &Link, noted: Option<&Head>) {
        if self.broken.is_some() {
            return;
        }
        let seq = link.seq;
        self.events += 1;
        self.broken = if seq != self.seq + 1 {
            let expected = self.seq + 1;
            Some(Break::Gap { seq, expected })
        } else if link.previous != self.hash {
            Some(Break::Chain { seq })
        } else if hash(&link.previous, &link.fields) != *link.hash {
            Some(Break::Changed { seq })
        } else {
            None
        };
        self.met_noted |=
            noted.is_some_and(|head| head.seq == seq && head.hash == hex::encode(&link.hash));
        self.seq = seq;
        self.hash.clone_from(&link.hash);
    }

    fn end(self, noted: Option<&Head>) -> Verified {
        let lost = noted.filter(|_| !self.met_noted);
        let lost = lost.map(|head| Break::Head { seq: head.seq });
        let head = (self.events > 0).then(|| Head {
            seq: self.seq,
            hash: hex::encode(&self.hash),
        });
        Verified {
            events: self.events,
            head,
            broken: self.broken.or(lost),
        }
    }
}

/// As the table's trigger does it: every field with its length in characters before it.
fn hash(previous: &[u8], fields: &[String]) -> [u8; 32] {
    let parts = fields
        .iter()
        .map(|field| format!("{}:{field}", field.chars().count()));
    let text = parts.collect::<Vec<_>>().join(",");
    let mut digest = Sha256::new();
    digest.update(previous);
    digest.update(text.as_bytes());
    digest.finalize().into()
}

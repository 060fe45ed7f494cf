//! What a client has sent that is to run as one: a Query, or a batch up to its Sync.

use super::session::Session;
use crate::{
    routing::{Catalogue, Reason, TEXT_BYTES_MAX, Target, Transaction, Verdict},
    wire::{HEADER_BYTES, peek, read, tag::frontend as tag},
};

/// What is to be sent as one.
pub(super) struct Batch {
    pub(super) bytes: usize,
    pub(super) verdict: Verdict,
    pub(super) is_single: bool,
}

impl Session {
    /// What stands at the front of what the client has sent, if it is here whole.
    pub(super) fn batch(&self) -> Option<Batch> {
        let bytes = self.client.to_server.unscanned();
        let header = peek(bytes).ok().flatten()?;
        let split = self.pool.split();
        let catalogue = split.catalogue(self.pool.shapes());
        let unknown;
        let catalogue = if let Some(known) = &catalogue {
            &***known
        } else {
            unknown = Catalogue::unknown();
            &unknown
        };
        if header.tag == tag::QUERY {
            let text = bytes.get(HEADER_BYTES..header.message_bytes)?;
            let text = text.strip_suffix(b"\0").unwrap_or(text);
            return Some(Batch {
                bytes: header.message_bytes,
                verdict: self.verdict_of(text, catalogue),
                is_single: is_single(text),
            });
        }
        self.batch_up_to_sync(bytes, catalogue)
    }

    fn batch_up_to_sync(&self, bytes: &[u8], catalogue: &Catalogue) -> Option<Batch> {
        let mut at = 0;
        let mut executes = 0;
        let mut verdict: Option<Verdict> = None;
        let mut unnamed: Option<&[u8]> = None;
        loop {
            let rest = bytes.get(at..)?;
            let header = peek(rest).ok().flatten()?;
            let body = rest.get(HEADER_BYTES..header.message_bytes)?;
            at += header.message_bytes;
            let next = match header.tag {
                tag::SYNC => {
                    let verdict = verdict.unwrap_or(primary(Reason::Empty));
                    return Some(Batch {
                        bytes: at,
                        verdict,
                        is_single: executes <= 1,
                    });
                }
                tag::PARSE => {
                    let (name, tail) = read::cstr(body)?;
                    let (text, _) = read::cstr(tail)?;
                    if name.is_empty() {
                        unnamed = Some(text);
                        self.verdict_of(text, catalogue)
                    } else {
                        // To be there is its end, wherever; and it may not be given twice.
                        primary(Reason::Prepared)
                    }
                }
                tag::BIND => {
                    let (_portal, tail) = read::cstr(body)?;
                    let (name, _) = read::cstr(tail)?;
                    self.verdict_of_bound(name, unnamed, catalogue)
                }
                tag::DESCRIBE => continue,
                tag::EXECUTE => {
                    executes += 1;
                    continue;
                }
                tag::CLOSE if body.first() == Some(&b'P') => continue,
                _ => primary(Reason::Prepared),
            };
            verdict = Some(match verdict {
                None => next,
                Some(before) => both(before, next),
            });
            if verdict.is_some_and(|all| all.target == Target::Primary && !begins(all)) {
                let verdict = verdict.unwrap_or(next);
                return Some(Batch {
                    bytes: at,
                    verdict,
                    is_single: false,
                });
            }
        }
    }

    fn verdict_of_bound(
        &self,
        name: &[u8],
        unnamed: Option<&[u8]>,
        catalogue: &Catalogue,
    ) -> Verdict {
        if name.is_empty() {
            let text = unnamed.unwrap_or_else(|| {
                let tail = self.client.unnamed.tail();
                read::cstr(tail).map_or(&[][..], |(text, _)| text)
            });
            return self.verdict_of(text, catalogue);
        }
        let Some(statement) = self.client.names.get(name) else {
            return primary(Reason::Prepared);
        };
        if !self.is_understood(statement.text()) {
            return primary(Reason::Encoding);
        }
        let intents = self.pool.split().intents();
        statement
            .intent(|text| intents.intent(text))
            .verdict(catalogue)
    }

    fn verdict_of(&self, text: &[u8], catalogue: &Catalogue) -> Verdict {
        if text.len() > TEXT_BYTES_MAX {
            return primary(Reason::TooLong);
        }
        if !self.is_understood(text) {
            return primary(Reason::Encoding);
        }
        self.pool.split().intents().verdict(text, catalogue)
    }

    /// Whether the text's letters are what they seem.
    fn is_understood(&self, text: &[u8]) -> bool {
        text.is_ascii() || self.client.takes_utf8()
    }
}

/// Whether a text is one statement, as far as its bytes tell.
fn is_single(text: &[u8]) -> bool {
    let text = text.trim_ascii_end();
    let text = text.strip_suffix(b";").unwrap_or(text);
    memchr::memchr(b';', text).is_none()
}

fn begins(verdict: Verdict) -> bool {
    matches!(verdict.transaction, Transaction::Begin(_))
}

pub(super) fn primary(reason: Reason) -> Verdict {
    Verdict::primary(reason, Transaction::None)
}

/// Of two statements in one batch. A transaction that begins is alone in it.
fn both(one: Verdict, other: Verdict) -> Verdict {
    // Parse and Bind of the same.
    if one == other {
        return one;
    }
    let is_plain = |verdict: Verdict| verdict.transaction == Transaction::None;
    if one.target == Target::Replica && is_plain(one) && is_plain(other) {
        return other;
    }
    if is_plain(one) && is_plain(other) {
        return one;
    }
    primary(Reason::Several)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::Mode;

    const READ: Verdict = Verdict {
        target: Target::Replica,
        transaction: Transaction::None,
        reason: Reason::Read,
    };

    #[test]
    fn a_batch_is_a_read_when_all_of_it_is() {
        let write = primary(Reason::Write);
        assert_eq!(both(READ, READ), READ);
        assert_eq!(both(READ, write), write);
        assert_eq!(both(write, READ), write);
    }

    #[test]
    fn a_statement_may_end_with_a_semicolon() {
        assert!(is_single(b"select 1") && is_single(b"select 1 ; \n"));
        assert!(!is_single(b"select 1; select 2"));
    }

    #[test]
    fn a_transaction_that_begins_in_a_batch_is_alone_in_it() {
        let begin = Verdict {
            transaction: Transaction::Begin(Mode::default()),
            ..READ
        };
        assert_eq!(both(begin, begin), begin, "its Parse and its Bind");
        assert_eq!(both(begin, READ), primary(Reason::Several));
        assert_eq!(both(READ, begin), primary(Reason::Several));
    }
}

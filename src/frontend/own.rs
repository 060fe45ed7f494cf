//! `SHOW pgusher.quota` of who may run nothing any more: answered without a server.

use super::session::Session;
use crate::{
    relay::{Rest, own_value},
    wire::{backend, peek, read::cstr, tag::frontend as tag},
};

/// The name that a text shows, if it shows one and does nothing else.
fn shown(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?.to_ascii_lowercase();
    let text = text.trim().trim_end_matches(';').trim_end();
    let name = text.strip_prefix("show")?;
    let is_apart = name.starts_with(|c: char| c.is_ascii_whitespace());
    is_apart.then(|| name.trim_start().to_owned())
}

/// What a client asks for.
struct Asked {
    name: String,
    /// How each of its messages is answered, by their tags.
    messages: Vec<(u8, bool)>,
    bytes: usize,
}

/// Reads a Query, or a batch from its Parse to its Sync, that shows a name and does nothing else.
/// `None`: it is something else, or not here whole.
fn asked(bytes: &[u8]) -> Option<Asked> {
    let (mut name, mut messages, mut at) = (None, Vec::new(), 0);
    loop {
        let rest = bytes.get(at..)?;
        let header = peek(rest).ok()??;
        let body = rest.get(5..header.message_bytes)?;
        at += header.message_bytes;
        let mut is_statement = false;
        match (header.tag, messages.len()) {
            (tag::QUERY, 0) => name = shown(cstr(body)?.0),
            (tag::PARSE, 0) => name = shown(cstr(body.strip_prefix(b"\0")?)?.0),
            // The unnamed portal, of the unnamed statement.
            (tag::BIND, 1..) if body.starts_with(b"\0\0") => {}
            (tag::EXECUTE, 1..) if body.starts_with(b"\0") => {}
            (tag::DESCRIBE, 1..) if matches!(body, b"S\0" | b"P\0") => {
                is_statement = body.starts_with(b"S");
            }
            (tag::FLUSH | tag::SYNC, 1..) => {}
            _ => return None,
        }
        let name = name.as_ref()?;
        messages.push((header.tag, is_statement));
        if matches!(header.tag, tag::QUERY | tag::SYNC) {
            let name = name.clone();
            return Some(Asked {
                name,
                messages,
                bytes: at,
            });
        }
    }
}

impl Session {
    /// Answers what only asks where the tenant stands; whether it was that.
    pub(super) fn tell_standing(&mut self) -> bool {
        let Some(asked) = asked(self.client.to_server.unscanned()) else {
            return false;
        };
        let Some((name, value)) = own_value(&self.client.handle, &asked.name) else {
            return false;
        };
        let out = self.client.to_client.insertion();
        for (message, is_statement) in asked.messages {
            match message {
                tag::QUERY => {
                    backend::one_column(out, name);
                    backend::one_value(out, &value);
                    backend::ready_idle(out);
                }
                tag::PARSE => out.extend_from_slice(backend::PARSE_COMPLETE),
                tag::BIND => out.extend_from_slice(backend::BIND_COMPLETE),
                tag::DESCRIBE => {
                    if is_statement {
                        out.extend_from_slice(backend::NO_PARAMETERS);
                    }
                    backend::one_column(out, name);
                }
                tag::EXECUTE => backend::one_value(out, &value),
                tag::SYNC => backend::ready_idle(out),
                _ => {}
            }
        }
        // A Query leaves no unnamed statement; what a Parse left is on no server.
        self.client.unnamed.clear();
        self.client.unnamed.settle();
        self.client.rest = Rest::Drop(asked.bytes);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_shows_and_nothing_else_is_answered() {
        for text in ["show pgusher.quota", " SHOW\n pgusher.Quota ; "] {
            assert_eq!(shown(text.as_bytes()).as_deref(), Some("pgusher.quota"));
        }
        assert_eq!(shown(b"showpgusher.quota"), None);
        let query = |text: &str| {
            let mut bytes = vec![b'Q'];
            bytes.extend((text.len() as u32 + 5).to_be_bytes());
            bytes.extend(text.bytes());
            bytes.push(0);
            bytes
        };
        let two = "show pgusher.quota; select 1";
        assert_eq!(asked(&query(two)).unwrap().name, "pgusher.quota; select 1");
        assert!(asked(&query("select 1")).is_none());
        let parse = b"P\0\0\0\x1a\0show pgusher.quota\0\0\0".to_vec();
        assert!(asked(&parse).is_none(), "its Sync is to come");
        let run = [
            &parse[..],
            b"B\0\0\0\x0c\0\0\0\0\0\0\0\0",
            b"E\0\0\0\x09\0\0\0\0\0",
            b"S\0\0\0\x04",
        ];
        assert_eq!(asked(&run.concat()).unwrap().messages.len(), 4);
        let named = [&parse[..], b"B\0\0\0\x0d\0s\0\0\0\0\0\0\0", b"S\0\0\0\x04"];
        assert!(asked(&named.concat()).is_none());
        let second = [&parse[..], &parse, b"S\0\0\0\x04"];
        assert!(asked(&second.concat()).is_none());
    }
}

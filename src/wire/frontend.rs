//! Messages that we send to a server, in a client's place. Each function appends one.

use super::{CancelKey, tag::frontend as tag};

/// `Sync`.
pub const SYNC: &[u8] = b"S\0\0\0\x04";
/// `Flush`.
pub const FLUSH: &[u8] = b"H\0\0\0\x04";
/// `Terminate`.
pub const TERMINATE: &[u8] = b"X\0\0\0\x04";
/// `SSLRequest`.
pub const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";

/// `Query`. The text must not contain NUL.
pub fn query(out: &mut Vec<u8>, sql: &str) {
    message(out, tag::QUERY, &[sql.as_bytes(), b"\0"]);
}

/// `Parse` of a statement: `tail` is query, NUL and parameter types as they came.
pub fn parse(out: &mut Vec<u8>, name: &[u8], tail: &[u8]) {
    message(out, tag::PARSE, &[name, b"\0", tail]);
}

/// `Close` of a statement.
pub fn close_statement(out: &mut Vec<u8>, name: &[u8]) {
    message(out, tag::CLOSE, &[b"S", name, b"\0"]);
}

/// `Describe` of a statement.
pub fn describe_statement(out: &mut Vec<u8>, name: &[u8]) {
    message(out, tag::DESCRIBE, &[b"S", name, b"\0"]);
}

/// A password, or any other answer to an authentication request.
pub fn password(out: &mut Vec<u8>, data: &[u8]) {
    message(out, tag::PASSWORD, &[data]);
}

/// `SASLInitialResponse`.
pub fn sasl_initial(out: &mut Vec<u8>, mechanism: &str, data: &[u8]) {
    let length = (data.len() as u32).to_be_bytes();
    message(
        out,
        tag::PASSWORD,
        &[mechanism.as_bytes(), b"\0", &length, data],
    );
}

/// `StartupMessage` of protocol 3.0.
pub fn startup<'a>(out: &mut Vec<u8>, parameters: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let start = out.len();
    out.extend([0; 4]);
    out.extend(0x0003_0000_u32.to_be_bytes());
    for (name, value) in parameters {
        out.extend(name.as_bytes());
        out.push(0);
        out.extend(value.as_bytes());
        out.push(0);
    }
    out.push(0);
    let length = (out.len() - start) as u32;
    if let Some(bytes) = out.get_mut(start..start + 4) {
        bytes.copy_from_slice(&length.to_be_bytes());
    }
}

/// `CancelRequest`.
pub fn cancel(out: &mut Vec<u8>, key: &CancelKey) {
    out.extend((12 + key.secret.len() as u32).to_be_bytes());
    out.extend(80_877_102_u32.to_be_bytes());
    out.extend(key.pid.to_be_bytes());
    out.extend_from_slice(&key.secret);
}

/// Any message, from parts of its body.
pub fn message(out: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    let body: usize = parts.iter().map(|part| part.len()).sum();
    out.push(tag);
    out.extend((body as u32 + 4).to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_messages_have_exact_bytes() {
        let mut out = Vec::new();
        query(&mut out, "x");
        parse(&mut out, b"s", b"q\0\0\0");
        assert_eq!(out, b"Q\0\0\0\x06x\0P\0\0\0\x0as\0q\0\0\0");
        out.clear();
        startup(&mut out, [("user", "u")]);
        assert_eq!(out, b"\0\0\0\x10\0\x03\0\0user\0u\0\0");
    }
}

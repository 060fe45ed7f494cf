//! Messages that we send to a client, in the server's place. Each function appends one.

use super::{Refusal, tag};
use pgwire::messages::{
    Message,
    response::{ErrorResponse, NoticeResponse, ReadyForQuery, TransactionStatus},
    startup::{Authentication, ParameterStatus},
};

/// `ParseComplete`.
pub const PARSE_COMPLETE: &[u8] = b"1\0\0\0\x04";
/// `BindComplete`.
pub const BIND_COMPLETE: &[u8] = b"2\0\0\0\x04";
/// `ParameterDescription` of a statement without any.
pub const NO_PARAMETERS: &[u8] = b"t\0\0\0\x06\0\0";
/// `CloseComplete`.
pub const CLOSE_COMPLETE: &[u8] = b"3\0\0\0\x04";

/// `ErrorResponse`.
pub fn error(out: &mut Vec<u8>, refusal: &Refusal) {
    let mut fields = vec![
        (b'S', refusal.severity.as_str().to_owned()),
        (b'V', refusal.severity.as_str().to_owned()),
        (b'C', refusal.sqlstate.0.to_owned()),
        (b'M', refusal.message.to_string()),
    ];
    if let Some(detail) = &refusal.detail {
        fields.push((b'D', detail.to_string()));
    }
    if let Some(hint) = &refusal.hint {
        fields.push((b'H', hint.to_string()));
    }
    append(out, &ErrorResponse::new(fields));
}

/// `NoticeResponse` of severity `WARNING`.
pub fn warning(out: &mut Vec<u8>, text: &str) {
    let fields = vec![
        (b'S', "WARNING".to_owned()),
        (b'V', "WARNING".to_owned()),
        (b'C', "01000".to_owned()),
        (b'M', text.to_owned()),
    ];
    append(out, &NoticeResponse::new(fields));
}

/// `NoticeResponse` of severity `NOTICE`.
pub fn notice(out: &mut Vec<u8>, text: &str) {
    let fields = vec![
        (b'S', "NOTICE".to_owned()),
        (b'V', "NOTICE".to_owned()),
        (b'C', "00000".to_owned()),
        (b'M', text.to_owned()),
    ];
    append(out, &NoticeResponse::new(fields));
}

/// `ReadyForQuery`, idle.
pub fn ready_idle(out: &mut Vec<u8>) {
    append(out, &ReadyForQuery::new(TransactionStatus::Idle));
}

/// `AuthenticationOk`.
pub fn authentication_ok(out: &mut Vec<u8>) {
    append(out, &Authentication::Ok);
}

/// `AuthenticationCleartextPassword`.
pub fn authentication_password(out: &mut Vec<u8>) {
    append(out, &Authentication::CleartextPassword);
}

/// `AuthenticationSASL` with these mechanisms, in order of preference.
pub fn authentication_sasl(out: &mut Vec<u8>, mechanisms: &[&str]) {
    let mechanisms = mechanisms.iter().map(|name| (*name).to_owned()).collect();
    append(out, &Authentication::SASL(mechanisms));
}

/// `AuthenticationSASLContinue`.
pub fn authentication_sasl_continue(out: &mut Vec<u8>, data: String) {
    append(out, &Authentication::SASLContinue(data.into()));
}

/// `AuthenticationSASLFinal`.
pub fn authentication_sasl_final(out: &mut Vec<u8>, data: String) {
    append(out, &Authentication::SASLFinal(data.into()));
}

/// `ParameterStatus`.
pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    append(
        out,
        &ParameterStatus::new(name.to_owned(), value.to_owned()),
    );
}

/// `BackendKeyData`; the key has four bytes in protocol 3.0 and up to 256 in 3.2.
pub fn key_data(out: &mut Vec<u8>, pid: u32, key: &[u8]) {
    out.push(tag::backend::KEY_DATA);
    out.extend((key.len() as u32 + 8).to_be_bytes());
    out.extend(pid.to_be_bytes());
    out.extend(key);
}

/// `NegotiateProtocolVersion`: the newest minor version that we speak, and the `_pq_.` options
/// that we don't know.
pub fn negotiate(out: &mut Vec<u8>, minor: u16, unknown: &[Box<str>]) {
    let names: usize = unknown.iter().map(|name| name.len() + 1).sum();
    out.push(tag::backend::NEGOTIATE);
    out.extend((12 + names as u32).to_be_bytes());
    out.extend((0x0003_0000 | u32::from(minor)).to_be_bytes());
    out.extend((unknown.len() as u32).to_be_bytes());
    for name in unknown {
        out.extend(name.as_bytes());
        out.push(0);
    }
}

/// `RowDescription` of one column of text.
pub fn one_column(out: &mut Vec<u8>, name: &str) {
    out.push(tag::backend::ROW_DESCRIPTION);
    out.extend((name.len() as u32 + 25).to_be_bytes());
    out.extend(1_u16.to_be_bytes());
    out.extend(name.as_bytes());
    out.push(0);
    // Of no table; the type text, of any length.
    out.extend([0; 6]);
    out.extend(25_u32.to_be_bytes());
    out.extend((-1_i16).to_be_bytes());
    out.extend((-1_i32).to_be_bytes());
    out.extend([0; 2]);
}

/// `DataRow` of one value, and the `CommandComplete` of SHOW.
pub fn one_value(out: &mut Vec<u8>, value: &str) {
    out.push(tag::backend::DATA_ROW);
    out.extend((value.len() as u32 + 10).to_be_bytes());
    out.extend(1_u16.to_be_bytes());
    out.extend((value.len() as u32).to_be_bytes());
    out.extend(value.as_bytes());
    out.extend(b"C\0\0\0\x09SHOW\0");
}

fn append(out: &mut Vec<u8>, message: &impl Message) {
    let mut bytes = bytes::BytesMut::new();
    match message.encode(&mut bytes) {
        Ok(()) => out.extend_from_slice(&bytes),
        Err(error) => tracing::error!(%error, "a message could not be encoded"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{SqlState, peek, read};

    #[test]
    fn a_refusal_is_a_well_formed_error() {
        let refusal = Refusal::fatal(SqlState::BAD_KEY, "no").with_detail("why");
        let bytes = refusal.encode();
        let header = peek(&bytes).unwrap().unwrap();
        assert_eq!((header.tag, header.message_bytes), (b'E', bytes.len()));
        assert_eq!(read::error_field(&bytes[5..], b'C'), Some(&b"28P01"[..]));
        assert_eq!(read::error_field(&bytes[5..], b'V'), Some(&b"FATAL"[..]));
        assert_eq!(read::error_field(&bytes[5..], b'D'), Some(&b"why"[..]));
    }

    #[test]
    fn built_messages_have_exact_bytes() {
        let mut out = Vec::new();
        ready_idle(&mut out);
        key_data(&mut out, 7, &[1, 2, 3, 4]);
        negotiate(&mut out, 2, &["_pq_.x".into()]);
        let expected: &[u8] = b"Z\0\0\0\x05IK\0\0\0\x0c\0\0\0\x07\x01\x02\x03\x04\
            v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0";
        assert_eq!(out, expected);
    }
}

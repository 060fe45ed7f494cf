//! A PostgreSQL on loopback that trusts everybody and answers everything with the same row, without
//! allocating: what is measured beside it is the proxy alone.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

/// What the login ends with.
const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0\
    S\0\0\0\x18server_version\x0016.0\0\
    S\0\0\0\x19client_encoding\0UTF8\0\
    K\0\0\0\x0c\0\0\0\x07\0\0\0\x09\
    Z\0\0\0\x05I";

const PARSE_COMPLETE: &[u8] = b"1\0\0\0\x04";
const BIND_COMPLETE: &[u8] = b"2\0\0\0\x04";
const CLOSE_COMPLETE: &[u8] = b"3\0\0\0\x04";
const NO_DATA: &[u8] = b"n\0\0\0\x04";
const READY: &[u8] = b"Z\0\0\0\x05I";

/// Answer to an Execute, and to a Query in front of ReadyForQuery.
pub const NOTHING: &[u8] = b"C\0\0\0\x0dSELECT 0\0";

const ROW: &[u8] = b"D\0\0\0\x0e\0\x01\0\0\0\x0442 \nC\0\0\0\x0dSELECT 1\0";

/// Bytes that one request may have.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Starts it; it ends with the process. Returns its address.
pub fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A connection that ends in an error is a client that left.
            thread::spawn(move || serve(stream).ok());
        }
    });
    Ok(address)
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut startup)?;
    stream.write_all(WELCOME)?;
    let mut request = vec![0; REQUEST_BYTES_MAX];
    let mut answer = Vec::with_capacity(REQUEST_BYTES_MAX);
    let mut here = 0;
    loop {
        let count = stream.read(request.get_mut(here..).unwrap_or_default())?;
        if count == 0 {
            return Ok(());
        }
        here += count;
        let used = answer_all(request.get(..here).unwrap_or_default(), &mut answer);
        request.copy_within(used..here, 0);
        here -= used;
        stream.write_all(&answer)?;
        answer.clear();
    }
}

/// Answers the messages that are here whole; returns their bytes.
fn answer_all(request: &[u8], answer: &mut Vec<u8>) -> usize {
    let mut used = 0;
    while let Some(&[tag, a, b, c, d]) = request.get(used..).and_then(|rest| rest.first_chunk()) {
        let end = used + 1 + u32::from_be_bytes([a, b, c, d]) as usize;
        if end > request.len() {
            break;
        }
        let message = request.get(used..end).unwrap_or_default();
        used = end;
        match tag {
            // Questions of the proxy's own, once per pool: there is nothing to find.
            b'Q' if message.windows(10).any(|part| part == b"pg_catalog") => {
                answer.extend_from_slice(NOTHING);
                answer.extend_from_slice(READY);
            }
            b'P' => answer.extend_from_slice(PARSE_COMPLETE),
            b'B' => answer.extend_from_slice(BIND_COMPLETE),
            b'C' => answer.extend_from_slice(CLOSE_COMPLETE),
            b'D' => answer.extend_from_slice(NO_DATA),
            b'E' => answer.extend_from_slice(ROW),
            b'S' => answer.extend_from_slice(READY),
            b'Q' => {
                answer.extend_from_slice(ROW);
                answer.extend_from_slice(READY);
            }
            _ => {}
        }
    }
    used
}

//! A client that logs in and then repeats requests, without allocating.

use pgusher::wire::{HEADER_BYTES, frontend, peek};
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

/// Bytes that one message may have.
const MESSAGE_BYTES_MAX: usize = 4096;

/// A logged-in client.
pub struct Client {
    stream: TcpStream,
    inbox: Box<[u8; MESSAGE_BYTES_MAX]>,
}

impl Client {
    /// Logs in with SCRAM.
    pub fn log_in(address: &str, tenant: &str, key: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Self {
            stream,
            inbox: Box::new([0; MESSAGE_BYTES_MAX]),
        };
        let mut out = Vec::new();
        frontend::startup(&mut out, [("user", tenant), ("database", tenant)]);
        client.send(&out);
        let mut scram = ScramSha256::new(key.as_bytes(), ChannelBinding::unsupported());
        client.read_message(b'R');
        out.clear();
        frontend::sasl_initial(&mut out, SCRAM_SHA_256, scram.message());
        client.send(&out);
        scram.update(&client.read_message(b'R')[4..]).unwrap();
        out.clear();
        frontend::password(&mut out, scram.message());
        client.send(&out);
        scram.finish(&client.read_message(b'R')[4..]).unwrap();
        client.read_until_ready();
        client
    }

    /// Sends requests.
    pub fn send(&mut self, request: &[u8]) {
        self.stream.write_all(request).unwrap();
    }

    /// Reads up to the next ReadyForQuery; returns how many rows came before it.
    pub fn read_until_ready(&mut self) -> usize {
        let mut rows = 0;
        loop {
            match self.read_any().0 {
                b'Z' => return rows,
                b'D' => rows += 1,
                b'E' => panic!("{:?}", self.inbox.escape_ascii().to_string()),
                _ => {}
            }
        }
    }

    fn read_message(&mut self, expected: u8) -> &[u8] {
        let (tag, bytes) = self.read_any();
        assert_eq!(tag, expected, "{}", self.inbox.escape_ascii());
        &self.inbox[HEADER_BYTES..bytes]
    }

    fn read_any(&mut self) -> (u8, usize) {
        self.stream
            .read_exact(&mut self.inbox[..HEADER_BYTES])
            .unwrap();
        let header = peek(&self.inbox[..HEADER_BYTES]).unwrap().unwrap();
        let body = &mut self.inbox[HEADER_BYTES..header.message_bytes];
        self.stream.read_exact(body).unwrap();
        (header.tag, header.message_bytes)
    }
}

//! A client of the admin API.

use super::wait::DEADLINE;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
};

/// Bytes both ways.
pub trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// Who asks, and where.
#[derive(Clone)]
pub struct Http {
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    headers: Vec<(String, String)>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status; 0 where the connection was closed without one.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// As text.
    pub body: String,
}

impl Answer {
    /// From everything that came.
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let headers = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        Self {
            status: status.unwrap_or(0),
            headers: headers.collect(),
            body: body.to_owned(),
        }
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// A header, or "".
    pub fn header(&self, name: &str) -> &str {
        let mut headers = self.headers.iter();
        let header = headers.find(|(known, _)| known == name);
        header.map_or("", |(_, value)| value)
    }

    /// The JSON of an answer with this status.
    pub fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }

    /// A problem of this status; returns its detail.
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], status);
        for field in ["type", "title", "detail"] {
            assert!(
                problem[field].as_str().is_some_and(|text| !text.is_empty()),
                "{self:?}"
            );
        }
        problem["detail"].as_str().unwrap().to_owned()
    }
}

impl Http {
    /// Nobody, at a port of this machine.
    pub fn new(port: u16) -> Self {
        Self {
            port,
            tls: None,
            headers: Vec::new(),
        }
    }

    /// Over TLS.
    pub fn over(mut self, tls: Arc<ClientConfig>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Who has this token.
    pub fn token(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// With a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The headers that it sends.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// Asks.
    pub fn send(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        for (name, value) in &self.headers {
            request.extend([name, ": ", value, "\r\n"]);
        }
        if let Some(body) = body {
            if !self.headers.iter().any(|(name, _)| name == "Content-Type") {
                request += "Content-Type: application/json\r\n";
            }
            request.extend(["Content-Length: ", &body.len().to_string(), "\r\n"]);
        }
        request += "\r\n";
        request += body.unwrap_or_default();
        self.raw(request.as_bytes())
    }

    /// Sends bytes, and reads to the end.
    pub fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.open();
        // A server that refuses early may close before it has read all.
        stream.write_all(bytes).ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        Answer::parse(&answer)
    }

    /// A connection; a handshake that fails is told when it is read.
    pub fn open(&self) -> Box<dyn Stream> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(6 * DEADLINE)).unwrap();
        let Some(config) = &self.tls else {
            return Box::new(socket);
        };
        let name = "localhost".try_into().unwrap();
        let mut session = ClientConnection::new(Arc::clone(config), name).unwrap();
        while session.is_handshaking() && session.complete_io(&mut socket).is_ok() {}
        Box::new(StreamOwned::new(session, socket))
    }

    /// GET
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None)
    }

    /// POST
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, Some(&body.to_string()))
    }

    /// PUT
    pub fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, Some(&body.to_string()))
    }

    /// DELETE
    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, None)
    }
}

//! A client that writes exact frames and reads exact frames.

use super::{
    Fields, Frame, Request,
    frames::{error, firsts},
    wait::DEADLINE,
};
use rustls::{ClientConnection, StreamOwned};
use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// What the bytes go through.
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A connection, logged in or not.
pub struct Client {
    pub(super) stream: Stream,
    unread: Vec<u8>,
    start: usize,
    /// The pid of the cancel key.
    pub pid: i32,
    /// The secret of the cancel key.
    pub secret: Vec<u8>,
    /// What `ParameterStatus` said last.
    pub parameters: BTreeMap<String, String>,
    /// All that came between the startup packet and the first `ReadyForQuery`.
    pub login_frames: Vec<Frame>,
    /// The status byte of the last `ReadyForQuery`.
    pub status: char,
    patience: Duration,
    /// What others do in between transactions.
    pub in_between: Option<Box<dyn FnMut() + Send>>,
}

impl Client {
    /// Over a connected stream.
    pub fn over(stream: Stream) -> Self {
        let client = Self {
            stream,
            unread: Vec::new(),
            start: 0,
            pid: 0,
            secret: Vec::new(),
            parameters: BTreeMap::new(),
            login_frames: Vec::new(),
            status: '-',
            patience: DEADLINE,
            in_between: None,
        };
        client.set_timeout(DEADLINE);
        match &client.stream {
            Stream::Tcp(socket) => socket.set_nodelay(true).unwrap(),
            Stream::Tls(tls) => tls.sock.set_nodelay(true).unwrap(),
            Stream::Unix(_) => {}
        }
        client
    }

    fn set_timeout(&self, limit: Duration) {
        let limit = Some(limit.max(Duration::from_millis(1)));
        let done = match &self.stream {
            Stream::Tcp(socket) => socket
                .set_write_timeout(limit)
                .and_then(|()| socket.set_read_timeout(limit)),
            Stream::Unix(socket) => socket
                .set_write_timeout(limit)
                .and_then(|()| socket.set_read_timeout(limit)),
            Stream::Tls(tls) => tls
                .sock
                .set_write_timeout(limit)
                .and_then(|()| tls.sock.set_read_timeout(limit)),
        };
        done.expect("a socket takes timeouts");
    }

    /// Waits this long for an answer.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Writes; an error is the caller's to judge.
    pub fn try_send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(socket) => socket.write_all(bytes),
            Stream::Unix(socket) => socket.write_all(bytes),
            Stream::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
        }
    }

    /// Writes.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes)
            .unwrap_or_else(|error| panic!("can't write: {error}"));
    }

    /// Writes messages.
    pub fn send(&mut self, request: &Request) {
        self.send_bytes(request.bytes());
    }

    /// Writes from another thread, for more than socket buffers hold.
    pub fn send_aside(&self, request: &Request) -> JoinHandle<()> {
        let Stream::Tcp(socket) = &self.stream else {
            panic!("only over TCP")
        };
        let mut socket = socket.try_clone().unwrap();
        let bytes = request.bytes().to_vec();
        thread::spawn(move || socket.write_all(&bytes).expect("the proxy reads on"))
    }

    /// Writes this again and again from another thread; whether that came to a halt before the end.
    pub fn send_aside_until_blocked(&self, request: &Request, times: u32) -> JoinHandle<bool> {
        let Stream::Tcp(socket) = &self.stream else {
            panic!("only over TCP")
        };
        let mut socket = socket.try_clone().unwrap();
        socket
            .set_write_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let bytes = request.bytes().to_vec();
        thread::spawn(move || (0..times).any(|_| socket.write_all(&bytes).is_err()))
    }

    /// Closes the sending half, unless the other side has closed everything already.
    pub fn half_close(&self) {
        let Stream::Tcp(socket) = &self.stream else {
            panic!("only over TCP")
        };
        socket.shutdown(Shutdown::Write).ok();
    }

    /// Closes with a RST: no farewell reaches the other side.
    pub fn reset(self) {
        let Stream::Tcp(socket) = self.stream else {
            panic!("only over TCP")
        };
        socket2::SockRef::from(&socket)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    /// The next bytes; `None` at the end of the connection.
    fn fill(&mut self, deadline: Instant) -> Option<()> {
        let mut chunk = [0; 16384];
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(
            !left.is_zero(),
            "no answer in {:?}; unread: {:?}",
            self.patience,
            self.pending()
        );
        self.set_timeout(left);
        let count = match &mut self.stream {
            Stream::Tcp(socket) => socket.read(&mut chunk),
            Stream::Unix(socket) => socket.read(&mut chunk),
            Stream::Tls(tls) => tls.read(&mut chunk),
        };
        match count {
            Ok(0) => return None,
            Ok(count) => self.unread.extend(&chunk[..count]),
            Err(error) => match error.kind() {
                // InvalidData is a TLS alert: a refusal.
                ErrorKind::ConnectionReset
                | ErrorKind::UnexpectedEof
                | ErrorKind::BrokenPipe
                | ErrorKind::InvalidData => {
                    return None;
                }
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                _ => panic!("can't read: {error}"),
            },
        }
        Some(())
    }

    fn pending(&self) -> String {
        let pending = &self.unread[self.start..];
        pending[..pending.len().min(100)].escape_ascii().to_string()
    }

    /// One byte, for the answers to SSLRequest and GSSENCRequest; `None` at the end.
    pub fn byte(&mut self) -> Option<char> {
        let deadline = Instant::now() + self.patience;
        while self.start == self.unread.len() {
            self.fill(deadline)?;
        }
        self.start += 1;
        Some(char::from(self.unread[self.start - 1]))
    }

    /// All bytes up to the end of the connection, whatever they are.
    pub fn raw_rest(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + self.patience;
        while self.fill(deadline).is_some() {}
        let rest = self.unread.split_off(self.start);
        self.unread.clear();
        self.start = 0;
        rest
    }

    /// The next message; `None` at the end of the connection.
    pub fn next_or_end(&mut self) -> Option<Frame> {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some((frame, length)) = Frame::split_from(&self.unread[self.start..]) {
                self.start += length;
                if self.start == self.unread.len() {
                    self.unread.clear();
                    self.start = 0;
                }
                self.note(&frame);
                return Some(frame);
            }
            self.fill(deadline)?;
        }
    }

    fn note(&mut self, frame: &Frame) {
        match frame.tag {
            b'Z' => self.status = char::from(frame.body[0]),
            b'S' => {
                let [name, value] = frame.strings().try_into().expect("a name and a value");
                self.parameters.insert(name, value);
            }
            b'K' => {
                let (pid, secret) = frame.body.split_first_chunk().expect("a pid");
                self.pid = i32::from_be_bytes(*pid);
                secret.clone_into(&mut self.secret);
            }
            _ => {}
        }
    }

    /// The next message.
    pub fn next(&mut self) -> Frame {
        self.next_or_end()
            .expect("a message, not the end of the connection")
    }

    /// So many messages.
    pub fn take(&mut self, count: usize) -> Vec<Frame> {
        (0..count).map(|_| self.next()).collect()
    }

    /// Messages up to the first of this type, which is the last returned.
    pub fn until(&mut self, tag: char) -> Vec<Frame> {
        let mut frames = Vec::new();
        while frames
            .last()
            .is_none_or(|frame: &Frame| frame.kind() != tag)
        {
            match self.next_or_end() {
                Some(frame) => frames.push(frame),
                None => panic!("the connection ended before {tag}, after {frames:?}"),
            }
        }
        frames
    }

    /// Messages up to the next `ReadyForQuery`.
    pub fn until_ready(&mut self) -> Vec<Frame> {
        let frames = self.until('Z');
        if self.status == 'I'
            && let Some(in_between) = &mut self.in_between
        {
            in_between();
        }
        frames
    }

    /// Messages up to the end of the connection.
    pub fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next_or_end() {
            frames.push(frame);
        }
        frames
    }

    /// Whether the connection ends, whatever comes before.
    pub fn ends(&mut self) -> bool {
        let end = Instant::now() + self.patience;
        self.set_timeout(self.patience);
        let mut chunk = [0; 16384];
        while Instant::now() < end {
            let count = match &mut self.stream {
                Stream::Tcp(socket) => socket.read(&mut chunk),
                Stream::Unix(socket) => socket.read(&mut chunk),
                Stream::Tls(tls) => tls.read(&mut chunk),
            };
            match count {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                }
            }
        }
        false
    }

    /// The connection ends with a FATAL error of this SQLSTATE as its last message.
    pub fn ends_with(&mut self, code: &str) -> Fields {
        let frames = self.rest();
        let last = frames
            .last()
            .expect("an error before the end of the connection");
        let error = last.fields();
        assert_eq!(
            (error.severity(), error.code()),
            ("FATAL", code),
            "in {frames:?}"
        );
        error
    }

    /// Writes messages, reads up to the next `ReadyForQuery`.
    pub fn ask(&mut self, request: &Request) -> Vec<Frame> {
        self.send(request);
        self.until_ready()
    }

    /// The answer to a simple query.
    pub fn query(&mut self, sql: &str) -> Vec<Frame> {
        self.ask(&Request::new().query(sql))
    }

    /// A simple query that succeeds.
    pub fn exec(&mut self, sql: &str) -> Vec<Frame> {
        let frames = self.query(sql);
        assert_eq!(error(&frames), None, "{sql}");
        frames
    }

    /// The first columns of a simple query's rows.
    pub fn values(&mut self, sql: &str) -> Vec<String> {
        firsts(&self.exec(sql))
    }

    /// The one value that a simple query returns.
    pub fn value(&mut self, sql: &str) -> String {
        let [value] = self.values(sql).try_into().expect("one row");
        value
    }

    /// The pid of the PostgreSQL process that serves this client now.
    pub fn server_pid(&mut self) -> String {
        self.value("select pg_backend_pid()")
    }

    /// The error of a simple query that fails.
    pub fn fails(&mut self, sql: &str) -> Fields {
        let frames = self.query(sql);
        error(&frames).unwrap_or_else(|| panic!("{sql} succeeded: {frames:?}"))
    }

    /// Nothing is left over from before: the next answer is the next question's.
    pub fn is_in_step(&mut self) {
        let mark = format!("mark {:?}", Instant::now());
        let frames = self.query(&format!("select '{}'", mark.replace('\'', "")));
        let is_asynchronous = |frame: &Frame| matches!(frame.tag, b'N' | b'S' | b'A');
        let frames: Vec<_> = frames
            .into_iter()
            .filter(|frame| !is_asynchronous(frame))
            .collect();
        assert_eq!(super::tags(&frames), "TDCZ", "{frames:?}");
        assert_eq!(firsts(&frames), [mark]);
    }
}

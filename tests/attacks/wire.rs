//! A connection that never panics: whatever comes back is evidence.

use crate::harness::{
    frames::{self, Frame},
    request::Request,
};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use socket2::{Domain, Socket, Type};
use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// How long an attacker waits for an answer, and who is attacked in a naive set-up. Who is locked
/// out by another waits for ever.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With ReadyForQuery, or with the message that was waited for.
    Ready,
    /// The connection was closed.
    Closed,
    /// Nothing more came.
    Silent,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The messages.
    pub frames: Vec<Frame>,
    /// How it ended.
    pub end: End,
}

impl Answer {
    /// The first error's SQLSTATE, or "".
    pub fn code(&self) -> String {
        frames::code(&self.frames)
    }

    /// Whether all went well.
    pub fn is_ok(&self) -> bool {
        self.end == End::Ready && self.code().is_empty()
    }

    /// The first columns of the rows.
    pub fn values(&self) -> Vec<String> {
        frames::firsts(&self.frames)
    }

    /// The only value, when there is one.
    pub fn value(&self) -> Option<String> {
        self.values().into_iter().next()
    }
}

/// A connection to a server or a proxy.
pub struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
    /// How long it waits for an answer.
    pub patience: Duration,
    /// Of the cancel key.
    pub pid: i32,
    /// Of the cancel key.
    pub secret: Vec<u8>,
    /// The status byte of the last ReadyForQuery.
    pub status: u8,
}

impl Wire {
    /// Connects, from this address if one is given.
    pub fn open(port: u16, from: Option<IpAddr>, patience: Duration) -> std::io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self {
            stream,
            unread: Vec::new(),
            patience,
            pid: 0,
            secret: Vec::new(),
            status: b'-',
        })
    }

    /// Writes; a closed connection shows when it is read.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).ok();
    }

    /// Says that nothing more will be sent.
    pub fn hang_up(&self) {
        self.stream.shutdown(Shutdown::Write).ok();
    }

    /// All bytes up to the end of the connection.
    pub fn raw_rest(&mut self) -> Vec<u8> {
        self.stream.set_read_timeout(Some(self.patience)).ok();
        let mut rest = std::mem::take(&mut self.unread);
        self.stream.read_to_end(&mut rest).ok();
        rest
    }

    /// The next message: `Err` says why there is none.
    pub fn next(&mut self, patience: Duration) -> Result<Frame, End> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some((frame, length)) = Frame::split_from(&self.unread) {
                self.unread.drain(..length);
                self.note(&frame);
                return Ok(frame);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(End::Silent);
            }
            self.stream.set_read_timeout(Some(left)).ok();
            let mut chunk = [0; 16384];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(End::Closed),
                Ok(count) => self.unread.extend(&chunk[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => return Err(End::Closed),
                },
            }
        }
    }

    fn note(&mut self, frame: &Frame) {
        match frame.tag {
            b'Z' => self.status = frame.body[0],
            b'K' => {
                let (pid, secret) = frame.body.split_first_chunk().expect("a pid");
                self.pid = i32::from_be_bytes(*pid);
                secret.clone_into(&mut self.secret);
            }
            _ => {}
        }
    }

    /// Messages up to one for which `is_last` holds.
    pub fn until(&mut self, patience: Duration, is_last: impl Fn(&Frame) -> bool) -> Answer {
        let mut frames = Vec::new();
        let deadline = Instant::now() + patience;
        loop {
            match self.next(deadline.saturating_duration_since(Instant::now())) {
                Ok(frame) => {
                    let is_end = is_last(&frame);
                    frames.push(frame);
                    if is_end {
                        let end = End::Ready;
                        return Answer { frames, end };
                    }
                }
                Err(end) => return Answer { frames, end },
            }
        }
    }

    /// Sends a startup packet and proves to be who has this password. What is refused is returned.
    pub fn log_in(&mut self, packet: &[u8], password: &str) -> Result<(), Answer> {
        self.send(packet);
        let mut scram: Option<ScramSha256> = None;
        let mut frames = Vec::new();
        loop {
            let frame = match self.next(self.patience) {
                Ok(frame) => frame,
                Err(end) => return Err(Answer { frames, end }),
            };
            frames.push(frame.clone());
            match frame.tag {
                b'Z' => return Ok(()),
                b'R' => {
                    let Some(answer) = prove(&frame.body, password, &mut scram) else {
                        let end = End::Silent;
                        return Err(Answer { frames, end });
                    };
                    self.send(&answer);
                }
                _ => {}
            }
        }
    }
}

/// The answer to an authentication request; `None` when there is none to give.
fn prove(body: &[u8], password: &str, scram: &mut Option<ScramSha256>) -> Option<Vec<u8>> {
    let (code, rest) = body.split_first_chunk()?;
    let request = match i32::from_be_bytes(*code) {
        0 => Request::new(),
        3 => Request::new().message(b'p', &[password.as_bytes(), b"\0"].concat()),
        10 => {
            let session = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
            let first = session.message();
            let length = u32::try_from(first.len()).ok()?.to_be_bytes();
            let body = [b"SCRAM-SHA-256\0", &length[..], first].concat();
            *scram = Some(session);
            Request::new().message(b'p', &body)
        }
        11 => {
            let session = scram.as_mut()?;
            session.update(rest).ok()?;
            Request::new().message(b'p', session.message())
        }
        12 => {
            scram.as_mut()?.finish(rest).ok()?;
            Request::new()
        }
        _ => return None,
    };
    Some(request.bytes().to_vec())
}

//! A minimal PostgreSQL client on blocking sockets: cheap enough to be held ten thousand times,
//! and to spend less on a login or a gigabyte than what it measures.

mod scram;
mod tls;

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::credential::Credential;
use crate::wire::tls::TlsStream;

/// No answer takes longer; a proxy that hangs must not hang the bench.
const PATIENCE: Duration = Duration::from_mins(1);
/// Nothing that is read whole is larger.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Who logs in where.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) address: SocketAddr,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) credential: Credential,
    pub(crate) tls: bool,
}

/// A logged-in client.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<Stream>,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

/// A message that was read whole.
#[derive(Debug)]
struct Message {
    tag: u8,
    body: Vec<u8>,
}

impl Client {
    /// Connects and logs in, up to the first ReadyForQuery; reads are buffered by 4 KiB.
    pub(crate) fn login(login: &Login) -> Result<Self> {
        Self::login_with_buffer(login, 4096)
    }

    /// The same with another read buffer, for bulk.
    pub(crate) fn login_with_buffer(login: &Login, buffer_bytes: usize) -> Result<Self> {
        let socket = TcpStream::connect(login.address).context("can't connect")?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let stream = if login.tls {
            Stream::Tls(Box::new(tls::connect(socket)?))
        } else {
            Stream::Plain(socket)
        };
        let mut client = Self {
            stream: BufReader::with_capacity(buffer_bytes, stream),
        };
        client.send(&startup(&login.user, &login.database))?;
        client.authenticate(&login.credential)?;
        client.read_until_ready()?;
        Ok(client)
    }

    fn authenticate(&mut self, credential: &Credential) -> Result<()> {
        loop {
            let Message { tag, body } = self.read_message()?;
            if tag != b'R' {
                bail!("login answered with message {:?}", char::from(tag));
            }
            match body
                .split_first_chunk::<4>()
                .map(|(kind, _)| u32::from_be_bytes(*kind))
            {
                Some(0) => return Ok(()),
                Some(10) => scram::run(self, credential)?,
                kind => bail!("login wants authentication {kind:?}"),
            }
        }
    }

    /// Runs one query and throws its result away; returns the bytes of the whole answer.
    pub(crate) fn query(&mut self, sql: &str) -> Result<u64> {
        self.send(&message(b'Q', &[sql.as_bytes(), &[0]]))?;
        self.read_until_ready()
    }

    /// Runs one query; the body of its first DataRow, empty where there is none.
    pub(crate) fn first_row(&mut self, sql: &str) -> Result<Vec<u8>> {
        self.send(&message(b'Q', &[sql.as_bytes(), &[0]]))?;
        let mut first = Vec::new();
        loop {
            let Message { tag, body } = self.read_message()?;
            match tag {
                b'Z' => return Ok(first),
                b'D' if first.is_empty() => first = body,
                _ => {}
            }
        }
    }

    /// Sends raw messages.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.get_mut().write_all(bytes).context("can't send")
    }

    /// Reads at most one buffer of whatever comes, to leave the rest where it is.
    pub(crate) fn read_some(&mut self) -> Result<usize> {
        let length = self.stream.fill_buf().context("can't receive")?.len();
        self.stream.consume(length);
        Ok(length)
    }

    /// Skips to the next ReadyForQuery; returns the bytes skipped. An ErrorResponse fails.
    pub(crate) fn read_until_ready(&mut self) -> Result<u64> {
        let mut total = 0;
        loop {
            let (tag, length) = self.read_header()?;
            total += 5 + length;
            match tag {
                b'E' => bail!("server says: {}", error_text(&self.read_body(length)?)),
                b'Z' => return self.skip(length).map(|()| total),
                _ => self.skip(length)?,
            }
        }
    }

    /// Skips to CopyInResponse. An ErrorResponse fails.
    pub(crate) fn read_until_copy_in(&mut self) -> Result<()> {
        loop {
            let Message { tag, .. } = self.read_message()?;
            if tag == b'G' {
                return Ok(());
            }
        }
    }

    /// Gives up the socket, for who waits on many at once: only without TLS, and after everything
    /// that came was read.
    pub(crate) fn into_socket(self) -> Result<TcpStream> {
        if !self.stream.buffer().is_empty() {
            bail!("a message that nobody asked for");
        }
        match self.stream.into_inner() {
            Stream::Plain(socket) => Ok(socket),
            Stream::Tls(_) => bail!("the socket of a TLS session can't be given up"),
        }
    }

    /// Says goodbye.
    pub(crate) fn terminate(mut self) -> Result<()> {
        self.send(&message(b'X', &[]))
    }

    fn read_message(&mut self) -> Result<Message> {
        let (tag, length) = self.read_header()?;
        let body = self.read_body(length)?;
        if tag == b'E' {
            bail!("server says: {}", error_text(&body));
        }
        Ok(Message { tag, body })
    }

    fn read_header(&mut self) -> Result<(u8, u64)> {
        let mut header = [0; 5];
        self.stream
            .read_exact(&mut header)
            .context("connection ended")?;
        let [tag, length @ ..] = header;
        let length = u64::from(u32::from_be_bytes(length)).checked_sub(4);
        Ok((tag, length.context("a message with an impossible length")?))
    }

    fn read_body(&mut self, length: u64) -> Result<Vec<u8>> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MESSAGE_BYTES_MAX {
            bail!("a message of {length} bytes where none is expected");
        }
        let mut body = vec![0; length];
        self.stream
            .read_exact(&mut body)
            .context("connection ended")?;
        Ok(body)
    }

    fn skip(&mut self, mut length: u64) -> Result<()> {
        while length > 0 {
            let available = self.stream.fill_buf().context("can't receive")?.len();
            if available == 0 {
                bail!("connection ended within a message");
            }
            let step = length.min(available as u64);
            self.stream.consume(step as usize);
            length -= step;
        }
        Ok(())
    }
}

/// A message with its tag and length.
pub(crate) fn message(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[tag], &length_of(parts)[..], &parts.concat()].concat()
}

/// The length field, which counts itself.
fn length_of(parts: &[&[u8]]) -> [u8; 4] {
    let length = 4 + parts.iter().map(|part| part.len()).sum::<usize>();
    u32::try_from(length)
        .expect("the bench sends no message above 4 GB")
        .to_be_bytes()
}

fn startup(user: &str, database: &str) -> Vec<u8> {
    let text = format!("user\0{user}\0database\0{database}\0client_encoding\0UTF8\0\0");
    let parts = [&196_608_u32.to_be_bytes()[..], text.as_bytes()];
    [&length_of(&parts)[..], &parts.concat()].concat()
}

/// Code and message of an ErrorResponse.
pub(crate) fn error_text(body: &[u8]) -> String {
    let fields = body
        .split(|byte| *byte == 0)
        .filter_map(|field| field.split_first());
    let wanted = fields.filter(|(name, _)| b"CM".contains(name));
    let texts: Vec<_> = wanted
        .map(|(_, text)| String::from_utf8_lossy(text))
        .collect();
    texts.join(" ")
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

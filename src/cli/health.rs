//! `pgusher health`: one request, so that an image without curl has a health check.

use super::{Io, UsageError};
use crate::tls::verifying;
use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio_rustls::rustls::{ClientConnection, StreamOwned, pki_types::ServerName};

/// For connecting and for the answer, each.
const TIMEOUT: Duration = Duration::from_secs(5);
/// More of an answer than this is not read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// What to ask: /healthz (does it run?) or /readyz (does it take clients?) of the admin listener
    #[arg(long, default_value = "http://127.0.0.1:6433/healthz")]
    url: String,
    /// The authority of an https:// URL's certificate; default: the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &HealthArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let target = split(&args.url).ok_or_else(|| UsageError::Url(args.url.clone()))?;
    let asked = get(&target, args.ca.as_ref());
    let (status, body) = asked.with_context(|| format!("can't ask {}", args.url))?;
    let body = body.trim();
    if args.json {
        let all = json!({ "url": args.url, "status": status, "body": body });
        writeln!(io.output, "{all:#}")?;
    } else {
        writeln!(io.output, "{body}")?;
    }
    if status != 200 {
        bail!("{} answers {status}", args.url);
    }
    Ok(())
}

/// What a URL names.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    is_tls: bool,
    /// `host:port`
    authority: String,
    path: String,
}

fn split(url: &str) -> Option<Target> {
    let (is_tls, rest) = match url.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, url.strip_prefix("http://")?),
    };
    let is_plain = rest.bytes().all(|byte| byte.is_ascii_graphic());
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    let has_port = port.is_some_and(|port| port.parse::<u16>().is_ok());
    let authority = if has_port {
        authority.to_owned()
    } else {
        format!("{authority}:{}", if is_tls { 443 } else { 80 })
    };
    (is_plain && !rest.starts_with('/')).then(|| Target {
        is_tls,
        authority,
        path: path.to_owned(),
    })
}

/// A connection whose reads can be given less and less time.
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn open(target: &Target, ca: Option<&PathBuf>) -> anyhow::Result<Self> {
        let socket = connect(&target.authority)?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        if !target.is_tls {
            return Ok(Self::Plain(socket));
        }
        let host = target.authority.rsplit_once(':');
        let host = host.map_or("", |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned())?;
        let session = ClientConnection::new(verifying(ca)?, name)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(session, socket))))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, part: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(part),
            Self::Tls(tls) => tls.read(part),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(part),
            Self::Tls(tls) => tls.write(part),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

fn get(target: &Target, ca: Option<&PathBuf>) -> anyhow::Result<(u16, String)> {
    let mut stream = Stream::open(target, ca)?;
    stream.socket().set_read_timeout(Some(TIMEOUT))?;
    let Target {
        authority, path, ..
    } = target;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let end = Instant::now() + TIMEOUT;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while (answer.len() as u64) < ANSWER_BYTES_MAX {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("no answer in time");
        }
        stream.socket().set_read_timeout(Some(left))?;
        match stream.read(&mut part)? {
            0 => break,
            count => answer.extend(part.iter().take(count)),
        }
    }
    parse(&String::from_utf8_lossy(&answer)).context("the answer is no HTTP")
}

fn connect(authority: &str) -> anyhow::Result<TcpStream> {
    let mut last = None;
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error.into()),
        None => bail!("{authority} has no address"),
    }
}

/// Status and body of an answer.
fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    Some((status.parse().ok()?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_perhaps_a_port_and_a_path() {
        for (url, parts) in [
            ("http://a:1/b/c", Some(("a:1", "/b/c"))),
            ("http://a", Some(("a:80", "/"))),
            (
                "http://[::1]:6433/healthz",
                Some(("[::1]:6433", "/healthz")),
            ),
            ("http://[::1]/", Some(("[::1]:80", "/"))),
            ("http:///x", None),
            ("ftp://a", None),
            ("http://a/b\r\nX: y", None),
            ("a:1", None),
        ] {
            let target = |(authority, path): (&str, &str)| Target {
                is_tls: false,
                authority: authority.to_owned(),
                path: path.to_owned(),
            };
            assert_eq!(split(url), parts.map(target), "{url}");
        }
        let https = split("https://a/b").unwrap();
        assert!(https.is_tls);
        assert_eq!((&*https.authority, &*https.path), ("a:443", "/b"));
    }

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let ok = parse("HTTP/1.1 200 OK\r\nA: b\r\n\r\nok\n");
        assert_eq!(ok, Some((200, "ok\n".to_owned())));
        for broken in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 x\r\n\r\n",
        ] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }
}

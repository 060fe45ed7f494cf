//! `pgusher health`: one request, so that an image without curl has a health check.

use super::{Io, UsageError};
use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use std::{
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

/// For connecting and for the answer, each.
const TIMEOUT: Duration = Duration::from_secs(5);
/// More of an answer than this is not read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// What to ask: /healthz (does it run?) or /readyz (does it take clients?) of the admin listener
    #[arg(long, default_value = "http://127.0.0.1:6433/healthz")]
    url: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &HealthArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let (authority, path) = split(&args.url).ok_or_else(|| UsageError::Url(args.url.clone()))?;
    let (status, body) =
        get(&authority, &path).with_context(|| format!("can't ask {}", args.url))?;
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

/// `host:port` and path of a URL.
fn split(url: &str) -> Option<(String, String)> {
    let rest = url.strip_prefix("http://")?;
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
        format!("{authority}:80")
    };
    (is_plain && !rest.starts_with('/')).then(|| (authority, path.to_owned()))
}

fn get(authority: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = connect(authority)?;
    stream.set_write_timeout(Some(TIMEOUT))?;
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
        stream.set_read_timeout(Some(left))?;
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
            ("https://a", None),
            ("http:///x", None),
            ("http://a/b\r\nX: y", None),
            ("a:1", None),
        ] {
            let parts = parts.map(|(authority, path)| (authority.to_owned(), path.to_owned()));
            assert_eq!(split(url), parts, "{url}");
        }
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

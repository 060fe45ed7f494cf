//! `postgres://` URLs of clusters: a place, and nothing else.

use super::error::UrlError;
use crate::tenant::Address;
use std::{net::Ipv6Addr, path::Path};

/// PostgreSQL's port.
const PORT: u16 = 5432;

/// Reads `postgres://host[:port]` or `postgres:///?host=/dir&port=5432`.
///
/// # Errors
/// [`UrlError`] when it is neither.
pub fn parse(text: &str) -> Result<Address, UrlError> {
    let rest = text
        .strip_prefix("postgres://")
        .or_else(|| text.strip_prefix("postgresql://"))
        .ok_or(UrlError::Scheme)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    if place.contains('@') {
        return Err(UrlError::User);
    }
    if !path.is_empty() {
        return Err(UrlError::Database);
    }
    if place.contains(',') {
        return Err(UrlError::Hosts);
    }
    let (host, port) = split_port(place)?;
    let mut host = unescape(host)?;
    let mut port = port.map(self::port).transpose()?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "host" if host.is_empty() => host = unescape(value)?,
            "port" if port.is_none() => port = Some(self::port(value)?),
            "user" | "password" => return Err(UrlError::User),
            "dbname" => return Err(UrlError::Database),
            _ => return Err(UrlError::Parameter(name.to_owned())),
        }
    }
    address(host, port.unwrap_or(PORT))
}

fn address(host: String, port: u16) -> Result<Address, UrlError> {
    if host.is_empty() {
        return Err(UrlError::Host);
    }
    if host.contains(',') {
        return Err(UrlError::Hosts);
    }
    if host.starts_with('/') {
        let file = Path::new(&host).join(format!(".s.PGSQL.{port}"));
        return Ok(Address::Unix(file));
    }
    let is_name = host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if is_name || host.parse::<Ipv6Addr>().is_ok() {
        let host = host.into_boxed_str();
        return Ok(Address::Tcp { host, port });
    }
    Err(UrlError::Host)
}

fn split_port(place: &str) -> Result<(&str, Option<&str>), UrlError> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(UrlError::Host)?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err(UrlError::Host);
        }
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(UrlError::Host),
        };
    }
    Ok(match place.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (place, None),
    })
}

fn port(text: &str) -> Result<u16, UrlError> {
    match text.parse() {
        Ok(0) | Err(_) => Err(UrlError::Port),
        Ok(port) => Ok(port),
    }
}

fn unescape(text: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).ok_or(UrlError::Escape)?;
        let digits = digits
            .bytes()
            .all(|b| b.is_ascii_hexdigit())
            .then_some(digits);
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.filter(|byte| *byte != 0).ok_or(UrlError::Escape)?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok().ok_or(UrlError::Escape)
}

/// The URL of an address: what [`parse`] reads.
pub fn print(address: &Address) -> String {
    match address {
        Address::Tcp { .. } => format!("postgres://{address}"),
        Address::Unix(file) => {
            let directory = file.parent().unwrap_or(Path::new("/")).to_string_lossy();
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let port = name.rsplit('.').next().unwrap_or_default();
            let directory = directory.replace('%', "%25").replace('&', "%26");
            format!("postgres:///?host={directory}&port={port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_url_is_a_host_or_the_directory_of_a_socket() {
        for (text, address) in [
            ("postgres://db", "db:5432"),
            ("postgresql://db:6000/", "db:6000"),
            ("postgres://10.0.0.1:1", "10.0.0.1:1"),
            ("postgres://[::1]:5433", "[::1]:5433"),
            ("postgres://[::1]", "[::1]:5432"),
            (
                "postgres:///?host=/run/pg&port=5433",
                "unix:/run/pg/.s.PGSQL.5433",
            ),
            ("postgres://%2Frun%2Fpg", "unix:/run/pg/.s.PGSQL.5432"),
            ("postgres://?host=db&port=9", "db:9"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), address, "{text}");
        }
    }

    #[test]
    fn whatever_belongs_elsewhere_is_an_error_that_says_where() {
        for (text, error) in [
            ("db:5432", UrlError::Scheme),
            ("mysql://db", UrlError::Scheme),
            ("postgres://app:hunter2@db", UrlError::User),
            ("postgres://db?password=x", UrlError::User),
            ("postgres://db/app", UrlError::Database),
            ("postgres://db?dbname=app", UrlError::Database),
            ("postgres://a,b", UrlError::Hosts),
            ("postgres://", UrlError::Host),
            ("postgres://a b", UrlError::Host),
            ("postgres://[::1", UrlError::Host),
            ("postgres://[x]", UrlError::Host),
            ("postgres://db:0", UrlError::Port),
            ("postgres://db:65536", UrlError::Port),
            (
                "postgres://db:5432?port=1",
                UrlError::Parameter("port".into()),
            ),
            (
                "postgres://db?sslmode=require",
                UrlError::Parameter("sslmode".into()),
            ),
            ("postgres://%2", UrlError::Escape),
            ("postgres://%+1", UrlError::Escape),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_text_never_panics_and_an_address_prints_as_it_reads(
            text in "(postgres://)?[a-z0-9/?&=:@%\\[\\].,host port-]{0,40}"
        ) {
            if let Ok(address) = parse(&text) {
                prop_assert_eq!(parse(&print(&address)), Ok(address));
            }
        }
    }
}

//! `postgres://` URLs of clusters: a place; of a replica also its share of the reads and its region.

use super::error::UrlError;
use crate::tenant::{Address, Replica};
use std::{net::Ipv6Addr, path::Path};

/// PostgreSQL's port.
const PORT: u16 = 5432;

/// Bytes of a region's name.
const REGION_BYTES_MAX: usize = 63;

/// Reads `postgres://host[:port]` or `postgres:///?host=/dir&port=5432`.
///
/// # Errors
/// [`UrlError`] when it is neither.
pub fn parse(text: &str) -> Result<Address, UrlError> {
    read(text, |name, _value| match name {
        "weight" | "region" => Err(UrlError::OfReplica(name.to_owned())),
        _ => Err(UrlError::Parameter(name.to_owned())),
    })
}

/// The same with `weight=1` (to 1000) and `region=name` among its parameters.
///
/// # Errors
/// [`UrlError`] when it is none.
pub fn parse_replica(text: &str) -> Result<Replica, UrlError> {
    let (mut weight, mut region) = (None, None);
    let address = read(text, |name, value| {
        match name {
            "weight" if weight.is_none() => weight = Some(self::weight(value)?),
            "region" if region.is_none() => region = Some(self::region(value)?),
            _ => return Err(UrlError::Parameter(name.to_owned())),
        }
        Ok(())
    })?;
    Ok(Replica {
        address,
        weight: weight.unwrap_or(1),
        region,
    })
}

fn weight(text: &str) -> Result<u32, UrlError> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_plain);
    let number = number.filter(|number| (1..=Replica::WEIGHT_MAX).contains(number));
    number.ok_or_else(|| UrlError::Weight(text.to_owned()))
}

/// A region's name: short, so that a mistake shows, and the same in a URL as elsewhere.
///
/// # Errors
/// [`UrlError::Region`].
pub(crate) fn region(text: &str) -> Result<Box<str>, UrlError> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if (1..=REGION_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_allowed) {
        Ok(text.into())
    } else {
        Err(UrlError::Region(text.to_owned()))
    }
}

/// Reads a URL; `other` gets the parameters that are no part of the address.
fn read(
    text: &str,
    mut other: impl FnMut(&str, &str) -> Result<(), UrlError>,
) -> Result<Address, UrlError> {
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
            "host" | "port" => return Err(UrlError::Parameter(name.to_owned())),
            _ => other(name, value)?,
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

/// The URL of a replica: what [`parse_replica`] reads.
pub fn print_replica(replica: &Replica) -> String {
    let mut url = print(&replica.address);
    let mut add = |parameter: String| {
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str(&parameter);
    };
    if replica.weight != 1 {
        add(format!("weight={}", replica.weight));
    }
    if let Some(region) = &replica.region {
        add(format!("region={region}"));
    }
    url
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
            (
                "postgres://db?weight=2",
                UrlError::OfReplica("weight".into()),
            ),
            ("postgres://%2", UrlError::Escape),
            ("postgres://%+1", UrlError::Escape),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_replica_has_a_weight_and_a_region() {
        let replica = |text: &str| {
            let replica = parse_replica(text).map_err(|error| error.to_string())?;
            let region = replica.region.as_deref().unwrap_or("-").to_owned();
            Ok::<_, String>((replica.address.to_string(), replica.weight, region))
        };
        for (text, address, weight, region) in [
            ("postgres://db:5433", "db:5433", 1, "-"),
            ("postgres://db?weight=1000", "db:5432", 1000, "-"),
            ("postgres://db:1?weight=2&region=eu-1", "db:1", 2, "eu-1"),
            (
                "postgres:///?region=a.B_c&host=/run/pg&port=5433&weight=1",
                "unix:/run/pg/.s.PGSQL.5433",
                1,
                "a.B_c",
            ),
        ] {
            let expected = (address.to_owned(), weight, region.to_owned());
            assert_eq!(replica(text), Ok(expected), "{text}");
            let read = parse_replica(text).unwrap();
            assert_eq!(parse_replica(&print_replica(&read)), Ok(read), "{text}");
        }
        let long = format!("postgres://db?region={}", "x".repeat(64));
        for (text, says) in [
            (
                "postgres://db?weight=0",
                "the weight \"0\" is not allowed; use 1 to 1000",
            ),
            ("postgres://db?weight=1001", "use 1 to 1000"),
            ("postgres://db?weight=", "use 1 to 1000"),
            ("postgres://db?weight=+1", "use 1 to 1000"),
            (
                "postgres://db?weight=1&weight=2",
                "the parameter \"weight\"",
            ),
            ("postgres://db?region=", "region \"\" is no name"),
            ("postgres://db?region=a b", "region \"a b\" is no name"),
            (&long, "is no name"),
            ("postgres://db?lag=1", "the parameter \"lag\""),
            ("postgres://db?user=app", "names a user"),
        ] {
            let told = replica(text).expect_err(text);
            assert!(told.contains(says), "{text}: {told}");
        }
    }

    proptest! {
        #[test]
        fn a_replica_never_panics_and_prints_as_it_reads(
            text in "(postgres://)?[a-z0-9/:.]{0,10}\\?(weight=[0-9]{1,4}&?)?(region=[a-z.-]{0,9}&?)?(host=/?[a-z]{0,3})?"
        ) {
            if let Ok(replica) = parse_replica(&text) {
                prop_assert_eq!(parse_replica(&print_replica(&replica)), Ok(replica));
            }
        }

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

//! Free loopback ports.

use anyhow::{Context as _, bail};
use std::net::{Ipv4Addr, TcpListener};

/// Below the range that the kernel hands to outgoing connections, so that a port that was free a
/// moment ago stays free.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// Whether nobody listens there.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// The preferred port when it is free, else another.
pub(super) fn pick(preferred: Option<u16>) -> anyhow::Result<u16> {
    let random = || FIRST + rand::random::<u16>() % COUNT;
    preferred
        .into_iter()
        .chain(std::iter::repeat_with(random).take(100))
        .find(|port| is_free(*port))
        .context("no free loopback port found")
}

/// The port that was asked for, which must be free.
pub(super) fn demand(port: u16) -> anyhow::Result<u16> {
    if !is_free(port) {
        bail!("port {port} is taken; choose another --port, or none to get a free one");
    }
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_not_picked_and_not_granted() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_ne!(pick(Some(port)).unwrap(), port);
        assert!(demand(port).unwrap_err().to_string().contains("taken"));
    }
}

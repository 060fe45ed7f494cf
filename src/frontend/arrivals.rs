//! Connections that are not logged in yet: bounded, shared by the addresses that they come from.
//!
//! An address may have as many as there are places left: so one that opens connections and says nothing, or
//! logs in again and again, leaves half of the places to others, two leave a quarter; it takes fourteen to fill
//! them all. Only the Unix socket may have every place. Handshakes take turns by address, too. Behind a load balancer all have one
//! address, unless it says theirs (`proxy_protocol_listen`).

use crate::{
    net::{Peer, Socket},
    pool::Rota,
    wire::{Refusal, SqlState},
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Connections that are not logged in yet, of all addresses; at most half as many of one. More are refused.
pub(super) const ARRIVALS_MAX: usize = 10_000;

/// A connection that is refused stays so long for its client to read why.
const REFUSAL_TIME: Duration = Duration::from_millis(250);

/// Where connections come from. Of version 6 a network of 64 bits counts as one: as many addresses are each
/// client's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Origin {
    Local,
    V4(Ipv4Addr),
    V6([u16; 4]),
}

impl Origin {
    fn of(peer: Peer) -> Self {
        match peer.ip() {
            None => Self::Local,
            Some(IpAddr::V4(ip)) => Self::V4(ip),
            Some(IpAddr::V6(ip)) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_origin: HashMap<Origin, usize>,
}

/// All of them.
#[derive(Debug)]
pub struct Arrivals {
    max: usize,
    counts: Mutex<Counts>,
    turns: Arc<Rota<Origin>>,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self::new(ARRIVALS_MAX)
    }
}

/// One of them, until this is dropped.
#[derive(Debug)]
pub(super) struct Arrived<'a> {
    arrivals: &'a Arrivals,
    origin: Origin,
}

impl Drop for Arrived<'_> {
    fn drop(&mut self) {
        let mut counts = self.arrivals.counts.lock();
        counts.all -= 1;
        if let Some(own) = counts.by_origin.get_mut(&self.origin) {
            *own -= 1;
            if *own == 0 {
                counts.by_origin.remove(&self.origin);
            }
        }
    }
}

impl Arrived<'_> {
    /// Does the work of a login in turns with that of other addresses.
    ///
    /// # Cancel safety
    /// As the work's own.
    pub(super) async fn log_in(self, work: impl Future<Output = ()>) {
        let turns = &self.arrivals.turns;
        turns.take_turns(self.origin, work).await;
    }
}

impl Arrivals {
    fn new(max: usize) -> Self {
        Self {
            max,
            counts: Mutex::default(),
            turns: Arc::default(),
        }
    }

    /// Lets addresses take turns: runs on the threads of the logins.
    pub fn drive(&self) -> impl Future<Output = ()> + use<> {
        Arc::clone(&self.turns).drive()
    }

    /// Takes a place for a connection from there; `None` when its address has its part.
    pub(super) fn enter(&self, peer: Peer) -> Option<Arrived<'_>> {
        let origin = Origin::of(peer);
        let mut counts = self.counts.lock();
        let free = self.max.saturating_sub(counts.all);
        let own = counts.by_origin.get(&origin).copied().unwrap_or_default();
        let has_its_part = own >= free && origin != Origin::Local;
        if free == 0 || has_its_part {
            return None;
        }
        counts.all += 1;
        *counts.by_origin.entry(origin).or_default() += 1;
        Some(Arrived {
            arrivals: self,
            origin,
        })
    }
}

/// Tells a connection in plain text that its address has too many, before it has said anything.
pub(super) async fn refuse(mut socket: Socket) {
    let text = "too many connections from this address are logging in";
    let refusal = Refusal::fatal(SqlState::TOO_MANY, text)
        .with_detail("As many as there are places left for all addresses; try again in a moment.");
    let told = async {
        socket.write_all(&refusal.encode()).await?;
        socket.shutdown().await?;
        // Closed with its bytes unread, it may not hear why.
        let mut said = [0; 512];
        while socket.read(&mut said).await? > 0 {}
        std::io::Result::Ok(())
    };
    drop(tokio::time::timeout(REFUSAL_TIME, told).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(ip: &str) -> Peer {
        Peer::Tcp(std::net::SocketAddr::new(ip.parse().unwrap(), 1))
    }

    #[test]
    fn an_address_leaves_places_to_others_whatever_it_does() {
        let arrivals = Arrivals::new(100);
        let all_of =
            |ip: &str| -> Vec<_> { std::iter::from_fn(|| arrivals.enter(peer(ip))).collect() };
        let first = all_of("192.0.2.1");
        let second = all_of("192.0.2.2");
        assert_eq!((first.len(), second.len()), (50, 25));
        let others: Vec<_> = (3..10)
            .map(|n| arrivals.enter(peer(&format!("192.0.2.{n}"))))
            .collect();
        assert!(others.iter().all(Option::is_some));
        drop((first, second));
        assert_eq!(
            all_of("192.0.2.3").len(),
            46,
            "half of those that are left, with its first"
        );
        drop(others);
        assert!(arrivals.counts.lock().by_origin.is_empty());
    }

    #[test]
    fn a_network_of_version_6_is_one_address() {
        let of = |ip| Origin::of(peer(ip));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}

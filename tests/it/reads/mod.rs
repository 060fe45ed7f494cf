//! Reads on replicas, with a real primary and two streaming replicas: who answers what, that
//! everybody reads what was written before, and what is seen of servers that die.

mod failover;
mod faults;
mod hints;
mod load;
mod own_writes;
mod pipelines;
mod prepared;
mod retries;
mod spread;
mod state;
mod statements;
mod transactions;
mod usage;

use crate::{
    harness::{
        Client, Connect, Fleet, Frame, Proxy, Request, Tenant, eventually,
        fleet::{PRIMARY, mark},
        frames::{self, firsts},
    },
    pin_limits::{metrics, sum},
};
use std::sync::OnceLock;

/// The fleet of the tests that leave it as it is.
fn shared() -> &'static Fleet {
    static SHARED: OnceLock<Fleet> = OnceLock::new();
    SHARED.get_or_init(|| Fleet::start(2))
}

/// A proxy before a fleet, for one tenant, `acme`.
struct Stage<'a> {
    fleet: &'a Fleet,
    proxy: Proxy,
}

impl<'a> Stage<'a> {
    fn over(fleet: &'a Fleet, change: impl FnOnce(Tenant) -> Tenant) -> Self {
        let proxy = fleet.proxy([change(fleet.tenant("acme"))]).start();
        Self { fleet, proxy }
    }

    fn connect(&self) -> Connect {
        self.proxy.connect("acme")
    }

    fn client(&self) -> Client {
        self.connect().login()
    }

    /// A client, whose tenant has a table `items` of three rows.
    fn furnished(&self) -> Client {
        let mut client = self.client();
        client.exec(
            "create table items (id int primary key, name text); \
             insert into items values (1, 'one'), (2, 'two'), (3, 'three')",
        );
        client
    }

    /// The answer to a Query, and the servers that it ran on: also a replica that was found behind, or
    /// to be the wrong place, before the primary.
    fn ask(&self, client: &mut Client, sql: &str) -> (Vec<Frame>, Vec<usize>) {
        let mark = mark();
        let request = Request::new().query(&format!("{sql} {mark}"));
        let (frames, seen) = self.trace(client, &request, &mark);
        let is_once = matches!(seen[..], [_] | [PRIMARY, _]);
        assert!(is_once, "{sql} ran on {seen:?}: {frames:?}");
        (frames, seen)
    }

    /// The answer to messages, and the servers that ran statements with this mark.
    fn trace(
        &self,
        client: &mut Client,
        request: &Request,
        mark: &str,
    ) -> (Vec<Frame>, Vec<usize>) {
        let since = self.fleet.now();
        let frames = client.ask(request);
        (frames, self.fleet.seen(&since, mark))
    }

    /// Succeeds on the primary.
    fn on_primary(&self, client: &mut Client, sql: &str) -> Vec<Frame> {
        let (frames, seen) = self.ask(client, sql);
        assert_eq!(frames::error(&frames), None, "{sql}");
        assert_eq!(seen, [PRIMARY], "{sql}");
        frames
    }

    /// Succeeds whenever it is asked, and before long on a replica; the values.
    fn on_replica(&self, client: &mut Client, sql: &str) -> Vec<String> {
        let mut values = None;
        eventually(&format!("a replica answers {sql}"), || {
            let (frames, seen) = self.ask(client, sql);
            assert_eq!(frames::error(&frames), None, "{sql}");
            let got = firsts(&frames);
            assert_eq!(*values.get_or_insert_with(|| got.clone()), got, "{sql}");
            seen[0] != PRIMARY
        });
        values.unwrap()
    }

    /// Returns when the tenant's reads go to replicas.
    fn settled(&self, client: &mut Client) {
        self.on_replica(client, "select 'settled'");
    }

    /// The sum of a figure's samples that have this label.
    fn figure(&self, name: &str, label: &str) -> f64 {
        sum(&metrics(&self.proxy), name, label)
    }
}

/// What a transaction of its own says of the server that a read-only one runs on: "t" is a replica.
fn reads_in_recovery(client: &mut Client, begin: &str) -> bool {
    client.exec(begin);
    let told = client.value("select pg_is_in_recovery()");
    client.exec("commit");
    told == "t"
}

/// The messages of a batch that succeeded, without notices.
fn plain_tags(frames: &[Frame]) -> String {
    let mut tags = frames::tags(frames);
    tags.retain(|tag| !"NSA".contains(tag));
    tags
}

/// Asks without being sure of an answer; the SQLSTATE of the error, or "" when the connection ends.
fn attempt(client: &mut Client, sql: &str) -> Result<Vec<Frame>, String> {
    let mut frames = Vec::new();
    if client
        .try_send_bytes(Request::new().query(sql).bytes())
        .is_ok()
    {
        while let Some(frame) = client.next_or_end() {
            let is_ready = frame.tag == b'Z';
            frames.push(frame);
            if is_ready && frames::error(&frames).is_none() {
                return Ok(frames);
            }
            if is_ready {
                break;
            }
        }
    }
    Err(frames::code(&frames))
}

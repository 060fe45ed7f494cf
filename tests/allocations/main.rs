//! In the steady state a transaction allocates nothing: a whole proxy in this process, a client and
//! a server that don't allocate, and every allocation of the process counted.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test ends when something is not as it should be"
)]

mod client;
mod postgres;
mod profile;

use client::Client;
use pgusher::wire::frontend;
use profile::{Profile, allocations_of};
use std::{fmt::Write as _, sync::mpsc, thread::JoinHandle, time::Duration};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const KEY: &str = "pgu_bench";

/// Transactions before counting begins: buffers, queues and names have their sizes then.
const WARM_UP: usize = 200;

/// Transactions that are counted.
const COUNTED: usize = 10_000;

/// What everything beside the transactions may allocate (sweeps, timers), spread over them.
const PER_TRANSACTION_MAX: f64 = 0.1;

/// Statements of one pipeline.
const PIPELINED: usize = 10;

/// Clients that share one server.
const WAITING: usize = 4;

/// What waiting for a server may allocate: a timer and a place in the queue.
const PER_WAIT_MAX: f64 = 3.0;

/// A proxy in this process.
struct Proxy {
    address: String,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Proxy {
    fn start(pool_mode: &str, pool_size: usize) -> Self {
        let server = postgres::start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.toml");
        let verifier = postgres_protocol::password::scram_sha_256(KEY.as_bytes());
        let mut text = String::from("[proxy]\nlisten = \"127.0.0.1:0\"\nworkers = 2\n");
        writeln!(text, "shutdown_timeout = \"1s\"").unwrap();
        writeln!(
            text,
            "[[clusters]]\nname = \"c\"\nprimary = \"postgres://{server}\""
        )
        .unwrap();
        writeln!(
            text,
            "[[tenants]]\nid = \"t\"\ncluster = \"c\"\ntier = \"database\""
        )
        .unwrap();
        writeln!(text, "database = \"t\"\nrole = \"t\"").unwrap();
        writeln!(text, "pool_mode = \"{pool_mode}\"\npool_size = {pool_size}").unwrap();
        writeln!(text, "keys = [{{ verifier = \"{verifier}\" }}]").unwrap();
        std::fs::write(&path, text).unwrap();
        let shutdown = CancellationToken::new();
        let (say, ready) = mpsc::channel();
        let token = shutdown.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let on_ready = |ready: &pgusher::app::Ready| say.send(ready.listen[0].clone()).unwrap();
            runtime
                .block_on(pgusher::app::run(&path, token, on_ready))
                .unwrap();
        });
        Self {
            address: ready.recv_timeout(Duration::from_secs(20)).unwrap(),
            shutdown,
            thread: Some(thread),
            _folder: folder,
        }
    }

    fn client(&self) -> Client {
        Client::log_in(&self.address, "t", KEY)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Bind, Execute of a prepared statement.
fn execute(out: &mut Vec<u8>, statement: &[u8]) {
    let parameters = b"\0\0\0\x01\0\0\0\x0242\0\0";
    frontend::message(out, b'B', &[b"\0", statement, b"\0", parameters]);
    frontend::message(out, b'E', &[b"\0\0\0\0\0"]);
}

fn prepare(client: &mut Client, statement: &[u8]) {
    let mut out = Vec::new();
    frontend::parse(&mut out, statement, b"select $1\0\0\0");
    out.extend_from_slice(frontend::SYNC);
    client.send(&out);
    client.read_until_ready();
}

/// Prints what was counted; returns it for each transaction.
fn report(what: &str, transactions: usize, profile: &Profile) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let each = profile.count as f64 / transactions as f64;
    println!(
        "{what}: {} allocations in {transactions} transactions, {each:.4} each",
        profile.count
    );
    each
}

/// Counts one client that sends a request, reads its answer, and again.
fn repeat(client: &mut Client, what: &str, request: &[u8], rows: usize) {
    let mut once = || {
        client.send(request);
        assert_eq!(client.read_until_ready(), rows);
    };
    (0..WARM_UP).for_each(|_| once());
    let profile = allocations_of(|| (0..COUNTED).for_each(|_| once()));
    let each = report(what, COUNTED, &profile);
    assert!(
        each < PER_TRANSACTION_MAX,
        "{what}: {each:.4} allocations each\n{profile}"
    );
}

/// Counts a few kinds of transactions.
fn repeat_kinds(proxy: &Proxy, mode: &str) {
    let mut client = proxy.client();
    let mut request = Vec::new();
    frontend::query(&mut request, "select 42");
    repeat(&mut client, &format!("{mode}, query"), &request, 1);

    prepare(&mut client, b"my statement");
    request.clear();
    execute(&mut request, b"my statement");
    request.extend_from_slice(frontend::SYNC);
    repeat(&mut client, &format!("{mode}, prepared"), &request, 1);

    request.clear();
    frontend::parse(&mut request, b"", b"select $1\0\0\0");
    execute(&mut request, b"");
    request.extend_from_slice(frontend::SYNC);
    repeat(&mut client, &format!("{mode}, unnamed"), &request, 1);

    request.clear();
    (0..PIPELINED).for_each(|_| execute(&mut request, b"my statement"));
    request.extend_from_slice(frontend::SYNC);
    let what = format!("{mode}, pipeline of {PIPELINED}");
    repeat(&mut client, &what, &request, PIPELINED);
}

/// Counts clients that find their only server lent and wait for it.
fn wait_for_each_other(proxy: &Proxy) -> f64 {
    let mut clients: Vec<Client> = (0..WAITING).map(|_| proxy.client()).collect();
    let mut request = Vec::new();
    frontend::query(&mut request, "select 42");
    let mut all = |rounds: usize| {
        for _ in 0..rounds {
            for client in &mut clients {
                client.send(&request);
            }
            for client in &mut clients {
                assert_eq!(client.read_until_ready(), 1);
            }
        }
    };
    all(WARM_UP);
    let rounds = COUNTED / WAITING;
    let profile = allocations_of(|| all(rounds));
    report("transaction, waiting", rounds * WAITING, &profile)
}

// One test, as the counter counts the whole process.
#[test]
fn a_transaction_allocates_nothing() {
    repeat_kinds(&Proxy::start("transaction", 2), "transaction");
    repeat_kinds(&Proxy::start("session", 2), "session");
    let each = wait_for_each_other(&Proxy::start("transaction", 1));
    assert!(each < PER_WAIT_MAX, "{each:.4} allocations for each wait");
}

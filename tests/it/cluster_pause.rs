//! A planned change of the primary: the cluster is paused, a replica is promoted, and no client has
//! had an error.

use crate::harness::{
    Client, Connect, Place, Postgres, Proxy, Tenant, eventually, eventually_some, frames,
    office::Office, postgres::signal, proxy_file::KEY,
};
use serde_json::Value;
use std::{
    collections::HashSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Longer than any of these tests.
const LONG: &str = "5m";
const PATIENCE: Duration = Duration::from_mins(2);

/// A primary and a standby that streams from it.
struct Servers {
    primary: Postgres,
    standby: Postgres,
}

impl Servers {
    fn start() -> Self {
        let primary = Postgres::start();
        let standby = primary.standby();
        Self { primary, standby }
    }

    /// Stops the primary as `pg_ctl stop -m fast` does, which sends all it has to the standby first,
    /// and promotes that.
    fn change(&mut self) {
        let file = self.primary.socket_folder().join("data/postmaster.pid");
        let pid = fs::read_to_string(&file).unwrap();
        signal("INT", pid.lines().next().unwrap());
        eventually("the primary has stopped", || !file.exists());
        self.primary.stop();
        let mut promoted = self.standby.admin();
        assert_eq!(promoted.value("select pg_promote()"), "t");
    }

    /// Transactions of this role that are open on the primary, and all its servers there.
    fn servers_of(admin: &mut Client, role: &str) -> [String; 2] {
        ["and xact_start is not null", ""].map(|more| {
            admin.value(&format!(
                "select count(*) from pg_stat_activity where usename = '{role}' \
                 and application_name <> 'pgusher watch' {more}"
            ))
        })
    }
}

/// Clients that write for as long as they are wanted, half of them in transactions.
struct Writers {
    is_over: Arc<AtomicBool>,
    written: Vec<Arc<AtomicUsize>>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Writers {
    fn start(connects: &[Connect]) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut writers = Self {
            is_over,
            written: Vec::new(),
            threads: Vec::new(),
        };
        for (number, connect) in connects.iter().enumerate() {
            let written = Arc::new(AtomicUsize::new(0));
            let (count, is_over) = (Arc::clone(&written), Arc::clone(&writers.is_over));
            let mut client = connect.login().patience(PATIENCE);
            writers.written.push(written);
            writers.threads.push(thread::spawn(move || {
                let mut acknowledged = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let row = format!("{number}.{}", acknowledged.len());
                    let insert = format!("insert into written values ('{row}')");
                    if number % 2 == 0 {
                        client.exec(&insert);
                    } else {
                        client.exec("begin");
                        client.exec(&insert);
                        client.exec("commit");
                    }
                    acknowledged.push(row);
                    count.fetch_add(1, Ordering::Relaxed);
                }
                acknowledged
            }));
        }
        writers
    }

    fn counts(&self) -> Vec<usize> {
        let counts = self.written.iter();
        counts.map(|one| one.load(Ordering::Relaxed)).collect()
    }

    /// Returns when each has written some more rows.
    fn go_on(&self) {
        let before = self.counts();
        eventually("all write", || {
            let failed = self.threads.iter().any(JoinHandle::is_finished);
            assert!(!failed, "a client had an error");
            let now = self.counts();
            before
                .iter()
                .zip(now)
                .all(|(before, now)| now >= before + 5)
        });
    }

    /// They end; what was acknowledged. None has had an error.
    fn end(self) -> HashSet<String> {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = self.threads.into_iter().map(JoinHandle::join);
        ended
            .flat_map(|rows| rows.expect("a client had an error"))
            .collect()
    }
}

/// All that was acknowledged is there, once.
fn all_are_there(client: &mut Client, acknowledged: &HashSet<String>) {
    let rows = client.values("select row from written");
    let distinct: HashSet<String> = rows.iter().cloned().collect();
    assert_eq!(distinct.len(), rows.len());
    let lost: Vec<_> = acknowledged.difference(&distinct).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert!(!acknowledged.is_empty());
}

/// Whether what only reads is answered by a replica.
fn is_read_from_replica(client: &mut Client) -> bool {
    if frames::error(&client.query("begin read only")).is_some() {
        // It is paused, and the replica is not as far as it has to be yet.
        return false;
    }
    let is_replica = client.value("select pg_is_in_recovery()") == "t";
    client.exec("commit");
    is_replica
}

fn proxy(servers: &Servers, place: &Place, hold: &str) -> Proxy {
    let tenant = Tenant::new("acme", place).set("failover_hold", hold);
    let replicas = vec![servers.standby.endpoint().url()];
    let proxy = Proxy::of([tenant]).cluster("replicas", replicas).start();
    let mut client = proxy.connect("acme").login();
    client.exec("create table written (row text)");
    eventually("reads go to the replica", || {
        is_read_from_replica(&mut client)
    });
    proxy
}

#[test]
fn a_planned_change_of_the_primary_of_a_file_costs_no_client_an_error() {
    let mut servers = Servers::start();
    let place = servers.primary.place();
    let mut proxy = proxy(&servers, &place, LONG);
    let connects: Vec<_> = (0..8).map(|_| proxy.connect("acme")).collect();
    let writers = Writers::start(&connects);
    writers.go_on();

    proxy.reload(|file| file.set_cluster("paused", true));
    let mut admin = place.admin();
    eventually("nothing of the tenant's is left on the primary", || {
        Servers::servers_of(&mut admin, place.role()) == ["0", "0"]
    });
    drop(admin);
    let paused = writers.counts();
    servers.change();
    assert_eq!(writers.counts(), paused, "nobody wrote while it was paused");
    proxy.reload(|file| file.set_cluster("paused", false));

    writers.go_on();
    let acknowledged = writers.end();
    let mut client = proxy.connect("acme").login();
    all_are_there(&mut client, &acknowledged);
    let mut promoted = servers.standby.endpoint().admin_of("shared");
    let count = format!("select count(*) from {}.written", place.role());
    let count: usize = promoted.value(&count).parse().unwrap();
    assert!(count > paused.iter().sum(), "writes arrive at the new one");
}

#[test]
fn a_pause_that_is_too_long_is_told_and_reads_on_replicas_go_on() {
    let servers = Servers::start();
    let place = servers.primary.place();
    let mut proxy = proxy(&servers, &place, "300ms");
    let mut client = proxy.connect("acme").login();
    let mut late = proxy.connect("acme").login();
    late.exec("begin; insert into written values ('late')");
    proxy.reload(|file| file.set_cluster("paused", true));

    let refused = eventually_some("it is paused", || {
        frames::error(&client.query("insert into written values ('early')"))
    });
    assert_eq!((refused.severity(), refused.code()), ("ERROR", "57P03"));
    eventually("reads on the replica go on", || {
        is_read_from_replica(&mut client)
    });
    // Who was in the middle of a transaction ends it, and begins no other.
    late.exec("insert into written values ('later'); commit");
    let mut admin = place.admin();
    eventually("nothing of the tenant's is left on the primary", || {
        Servers::servers_of(&mut admin, place.role()) == ["0", "0"]
    });
    assert_eq!(late.fails("begin; delete from written").code(), "57P03");
    eventually("reads on the replica go on", || {
        is_read_from_replica(&mut late)
    });

    proxy.reload(|file| file.set_cluster("paused", false));
    eventually("it goes on", || {
        frames::error(&client.query("insert into written values ('again')")).is_none()
    });
    late.exec("insert into written values ('again')");
    let rows = client.values("select row from written where row like 'late%' order by row");
    assert_eq!(rows, ["late", "later"]);
}

/// A registry with `acme` in a cluster of these servers, and two proxies.
struct Company {
    office: Office,
    proxies: [Proxy; 2],
    role: String,
    key: String,
}

impl Company {
    fn new(servers: &Servers) -> Self {
        let office = Office::new(Postgres::shared().endpoint());
        let replica = servers.standby.endpoint().url();
        office.add_cluster("main", servers.primary.endpoint(), &["--replica", &replica]);
        let made = office.json(&["tenant", "create", "acme", "--tier", "schema"]);
        let url = made["url"].as_str().unwrap();
        let key = url.split([':', '@']).nth(2).unwrap().to_owned();
        office.json(&["tenant", "set", "acme", &format!("failover_hold={LONG}")]);
        let role = "select role from pgusher.tenant where id = 'acme'";
        let role = office.admin().value(role);
        let proxies = [office.serve(), office.serve()];
        let company = Self {
            office,
            proxies,
            role,
            key,
        };
        let mut client = company.connect(0).login();
        client.exec("create table written (row text)");
        company
    }

    fn connect(&self, at: usize) -> Connect {
        assert_ne!(self.key, KEY);
        let address = self.proxies[at].address();
        Connect::to(address).user("acme").password(&self.key)
    }

    /// What the events say that `paused_until` was, before and after.
    fn told(&self) -> Vec<(Value, Value)> {
        let sql = "select coalesce(json_agg(changes->'paused_until' order by seq), '[]')::text \
                   from pgusher.event where kind = 'ConfigUpdated' and changes ? 'paused_until'";
        let events: Vec<Value> = serde_json::from_str(&self.office.admin().value(sql)).unwrap();
        let pair = |event: Value| (event["before"].clone(), event["after"].clone());
        events.into_iter().map(pair).collect()
    }
}

#[test]
fn a_planned_change_of_the_primary_of_a_registry_costs_no_client_of_any_proxy_an_error() {
    let mut servers = Servers::start();
    let company = Company::new(&servers);
    let connects: Vec<_> = (0..8).map(|at| company.connect(at % 2)).collect();
    let writers = Writers::start(&connects);
    writers.go_on();

    let pause = ["cluster", "pause", "main", "--for", LONG];
    let told = company.office.run(&pause).succeeded().out;
    let says = "paused: no transaction is open; promote a replica now, then: pgusher cluster resume main\n";
    assert!(told.starts_with(says), "{told}");
    let mut admin = servers.primary.admin();
    let [open, _] = Servers::servers_of(&mut admin, &company.role);
    assert_eq!(open, "0");
    drop(admin);
    let paused = writers.counts();
    let shown = company.office.json(&["cluster", "show", "main"]);
    let until = shown["paused_until"].as_str().unwrap();
    let list = company.office.run(&["cluster", "list"]).succeeded().out;
    assert!(list.contains("paused until"), "{list}");
    assert!(list.contains(&until[..19]), "{until} in {list}");
    servers.change();
    assert_eq!(writers.counts(), paused, "nobody wrote while it was paused");
    let resumed = company.office.json(&["cluster", "resume", "main"]);
    assert_eq!(resumed["paused_until"], Value::Null);

    writers.go_on();
    let acknowledged = writers.end();
    all_are_there(&mut company.connect(1).login(), &acknowledged);
    assert_eq!(acknowledged.len(), {
        let database = "select database_name from pgusher.tenant";
        let database = company.office.admin().value(database);
        let mut promoted = servers.standby.endpoint().admin_of(&database);
        let schema = "select schema_name from pgusher.tenant";
        let schema = company.office.admin().value(schema);
        let count = promoted.value(&format!("select count(*) from {schema}.written"));
        count.parse::<usize>().unwrap()
    });
    let [(before, after), (again, end)] = company.told().try_into().unwrap();
    assert!(before.is_null() && end.is_null() && after == again);
    assert!(after.is_string());
    company.office.run(&["audit", "verify"]).succeeded();
}

/// The functions that tell how far a server is are closed to tenants there.
#[test]
fn a_tenant_of_a_hardened_database_reads_on_replicas_all_that_it_wrote() {
    let servers = Servers::start();
    let company = Company::new(&servers);
    let mut client = company.connect(0).login();
    let asked = client.query("select pg_catalog.pg_last_wal_replay_lsn()");
    assert_eq!(frames::error(&asked).unwrap().code(), "42501");
    eventually("it is read from the replica", || {
        is_read_from_replica(&mut client)
    });
    for number in 1..=20 {
        client.exec(&format!("insert into written values ('{number}')"));
        let rows = client.value("select count(*) from written");
        assert_eq!(rows, number.to_string());
    }
    eventually("and is again", || is_read_from_replica(&mut client));
}

#[test]
fn a_pause_ends_by_itself_and_is_taken_back_when_transactions_stay_open() {
    let servers = Servers::start();
    let company = Company::new(&servers);
    let mut open = company.connect(0).login();
    open.exec("begin; insert into written values ('open')");
    let pause = ["cluster", "pause", "main", "--for", "2s"];
    let failed = company.office.run(&pause);
    assert!(!failed.is_success, "{}", failed.out);
    let says = "1 transactions of tenants are still open on the primary of cluster \"main\" after 2s: it is not paused any more";
    assert!(failed.err.contains(says), "{}", failed.err);
    assert_eq!(company.told().len(), 2);
    let shown = company.office.json(&["cluster", "show", "main"]);
    assert_eq!(shown["paused_until"], Value::Null);
    open.exec("insert into written values ('still'); commit");
    let mut other = company.connect(1).login().patience(PATIENCE);
    other.exec("insert into written values ('other')");

    let paused = company.office.json(&pause);
    assert_eq!(paused["open_transactions"], 0);
    assert!(paused["paused_until"].is_string());
    // Nobody resumes it, and nothing is written in the registry.
    open.exec("insert into written values ('by itself')");
    other.exec("insert into written values ('by itself')");
    let told = company.told();
    assert_eq!(told.len(), 3);
    assert_eq!(told[2].1, paused["paused_until"]);
    let over = "select paused_until < clock_timestamp() from pgusher.cluster";
    assert_eq!(company.office.admin().value(over), "t");
    let list = company.office.run(&["cluster", "list"]).succeeded().out;
    let until = paused["paused_until"].as_str().unwrap();
    assert!(!list.contains(&until[..19]), "{list}");

    for (time, says) in [
        ("1s", "it must be 2s to 10m"),
        ("11m", "it must be 2s to 10m"),
    ] {
        let run = company
            .office
            .run(&["cluster", "pause", "main", "--for", time]);
        assert!(!run.is_success && run.err.contains(says), "{}", run.err);
    }
    let unknown = company.office.run(&["cluster", "resume", "nobody"]);
    assert!(!unknown.is_success, "{}", unknown.out);
}

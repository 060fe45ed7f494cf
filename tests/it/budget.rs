//! The server connections of a cluster, shared by tenants that want more than there are.

use crate::{
    harness::{
        Client, Postgres, Proxy, Request, Tenant, eventually,
        frames::{code, firsts},
    },
    pin_limits::{metrics, sum},
};
use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread::{self, JoinHandle},
};

/// A metric's sum over its labels.
fn metric(proxy: &Proxy, name: &str) -> f64 {
    sum(&metrics(proxy), name, "")
}

/// Tenants of a budget; all are in one place, so that all their servers can be counted together.
fn shared(servers: u32, tenants: impl IntoIterator<Item = Tenant>) -> Proxy {
    Proxy::of(tenants)
        .cluster("max_server_connections", servers)
        .admin()
        .start()
}

/// Many clients of a tenant that never stop asking.
struct Flood {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

impl Flood {
    fn of(proxy: &Proxy, tenant: &str, clients: usize) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let clients = (0..clients).map(|_| {
            let mut client = proxy.connect(tenant).login();
            let (stop, served): (_, Arc<AtomicU64>) = (Arc::clone(&stop), Arc::clone(&served));
            thread::spawn(move || {
                while !stop.load(Relaxed) {
                    client.exec("select pg_sleep(0.005)");
                    served.fetch_add(1, SeqCst);
                }
            })
        });
        let clients = clients.collect();
        let flood = Self {
            stop,
            served,
            clients,
        };
        flood.goes_on(clients_of(&flood));
        flood
    }

    fn served(&self) -> u64 {
        self.served.load(SeqCst)
    }

    /// Waits until so many more of its transactions are over.
    fn goes_on(&self, more: u64) {
        let until = self.served() + more;
        eventually("the flood goes on", || self.served() >= until);
    }

    fn end(self) {
        self.stop.store(true, Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
    }
}

fn clients_of(flood: &Flood) -> u64 {
    flood.clients.len() as u64
}

#[test]
fn a_flood_leaves_quiet_tenants_their_part() {
    let place = Postgres::shared().place();
    let quiet = ["q1", "q2", "q3"].map(|id| Tenant::new(id, &place));
    let flood = Tenant::new("flood", &place).pool_size(20);
    let proxy = shared(4, quiet.into_iter().chain([flood]));
    let flood = Flood::of(&proxy, "flood", 40);
    let mut quiet = ["q1", "q2", "q3"].map(|id| proxy.connect(id).login());
    let (rounds, before) = (20, flood.served());
    for _ in 0..rounds {
        for client in &mut quiet {
            client.send(&Request::new().query("select 'served' from pg_sleep(0.005)"));
        }
        for client in &mut quiet {
            assert_eq!(firsts(&client.until_ready()), ["served"]);
        }
    }
    // A round is as long as a transaction of the flood, and what it may be ahead: 25 ms of server time. Some
    // more on a machine that does other work, too.
    let flooded = flood.served() - before;
    let answered = rounds * quiet.len() as u64;
    assert!(flooded < 50 * answered, "{flooded} beside {answered}");
    assert!(metric(&proxy, "pgusher_budget_waiting") > 0.0);
    flood.end();
    eventually("nobody waits", || {
        metric(&proxy, "pgusher_budget_waiting") < 0.5
    });
}

#[test]
fn what_is_guaranteed_is_not_taken() {
    let place = Postgres::shared().place();
    let promised = Tenant::new("promised", &place).set("guaranteed_servers", 1);
    let flood = Tenant::new("flood", &place).pool_size(20);
    let proxy = shared(3, [promised, flood]);
    let flood = Flood::of(&proxy, "flood", 20);
    let mut client = proxy.connect("promised").login();
    let server = client.server_pid();
    for _ in 0..3 {
        flood.goes_on(50);
        assert_eq!(client.server_pid(), server, "its idle server was taken");
    }
    flood.end();
}

#[test]
fn what_is_guaranteed_is_kept_free_of_transactions_that_never_end() {
    let place = Postgres::shared().place();
    let promised = Tenant::new("promised", &place).set("guaranteed_servers", 2);
    let flood = Tenant::new("flood", &place).pool_size(20);
    let proxy = shared(4, [promised, flood]);
    let mut promised = [(); 2].map(|()| proxy.connect("promised").login());
    promised[0].exec("select 1");
    let mut idle: Vec<_> = (0..6).map(|_| proxy.connect("flood").login()).collect();
    for client in &mut idle {
        client.send(&Request::new().query("begin"));
    }
    eventually("the others wait", || {
        metric(&proxy, "pgusher_budget_waiting") > 3.5
    });
    // Two stand in their transactions, and stay there.
    for client in &mut promised {
        client.exec("begin");
    }
    for client in &mut promised {
        client.exec("commit");
    }
    // None of theirs is taken while they don't need it.
    assert!(metric(&proxy, "pgusher_budget_waiting") > 3.5);
}

#[test]
fn an_idle_server_goes_to_who_waits() {
    let place = Postgres::shared().place();
    let tenants = ["one", "two"].map(|id| Tenant::new(id, &place));
    let proxy = shared(2, tenants);
    let mut ones = [proxy.connect("one").login(), proxy.connect("one").login()];
    for sql in ["begin", "commit"] {
        for client in &mut ones {
            client.exec(sql);
        }
    }
    let mut twos = [proxy.connect("two").login(), proxy.connect("two").login()];
    for client in &mut twos {
        client.exec("begin");
    }
    for client in &mut twos {
        client.exec("commit");
    }
    ones.iter_mut().for_each(Client::is_in_step);
}

#[test]
fn two_hundred_tenants_are_served_by_five_servers() {
    let place = Postgres::shared().place();
    let ids: Vec<_> = (0..200).map(|number| format!("t{number}")).collect();
    let tenants: Vec<_> = ids.iter().map(|id| Tenant::new(id, &place)).collect();
    let proxy = shared(5, tenants);
    let mut clients: Vec<_> = ids.iter().map(|id| proxy.connect(id).login()).collect();
    for round in 0..2 {
        for client in &mut clients {
            client.send(&Request::new().query(&format!("select 'round {round}'")));
        }
        for client in &mut clients {
            assert_eq!(firsts(&client.until_ready()), [format!("round {round}")]);
        }
    }
    assert!(metric(&proxy, "pgusher_server_connections") < 5.5);
}

#[test]
fn who_leaves_the_queue_gives_its_turn_on() {
    let place = Postgres::shared().place();
    let tenants = ["one", "two", "three"].map(|id| Tenant::new(id, &place));
    let proxy = shared(1, tenants);
    let waiting = |count: f64| {
        eventually("so many wait", || {
            (metric(&proxy, "pgusher_budget_waiting") - count).abs() < 0.5
        });
    };
    let [mut holder, mut leaver, mut stayer] =
        ["one", "two", "three"].map(|id| proxy.connect(id).login());
    holder.exec("begin");
    leaver.send(&Request::new().query("select 1"));
    waiting(1.0);
    stayer.send(&Request::new().query("select 'served'"));
    waiting(2.0);
    proxy.connect("two").cancel(&leaver);
    assert_eq!(code(&leaver.until_ready()), "57014");
    waiting(1.0);
    holder.exec("commit");
    assert_eq!(firsts(&stayer.until_ready()), ["served"]);
    holder.is_in_step();
    waiting(0.0);
}

#[test]
fn a_budget_changes_while_it_is_used() {
    let place = Postgres::shared().place();
    let mut admin = place.admin();
    let tenants = ["one", "two", "three"].map(|id| Tenant::new(id, &place));
    let mut proxy = shared(2, tenants);
    let mut clients = ["one", "two", "three"].map(|id| proxy.connect(id).login());
    clients[0].exec("begin");
    clients[1].exec("begin");
    clients[2].send(&Request::new().query("begin"));
    eventually("the third waits", || {
        metric(&proxy, "pgusher_budget_waiting") > 0.5
    });
    proxy.reload(|file| file.set_cluster("max_server_connections", 3));
    assert_eq!(code(&clients[2].until_ready()), "");
    proxy.reload(|file| file.set_cluster("max_server_connections", 1));
    for client in &mut clients {
        client.exec("select 1");
        client.exec("commit");
    }
    eventually("what is too much is closed", || {
        place.server_pids(&mut admin).len() <= 1
    });
    for _ in 0..3 {
        clients.iter_mut().for_each(Client::is_in_step);
    }
}

#[test]
fn no_place_is_lost_by_clients_that_are_killed() {
    let place = Postgres::shared().place();
    let mut admin = place.admin();
    let ids = ["one", "two", "three", "four"];
    let tenants = ids.map(|id| Tenant::new(id, &place).set("server_idle_timeout", "1s"));
    let proxy = shared(3, tenants);
    for round in 0..30 {
        let mut clients: Vec<_> = ids
            .iter()
            .chain(&ids)
            .map(|id| proxy.connect(id).login())
            .collect();
        for (number, client) in clients.iter_mut().enumerate() {
            let sql = [
                "begin",
                "select 1",
                "select pg_sleep(0.01)",
                "begin; select 1",
            ];
            let sql = sql[(number + round) % sql.len()];
            client.send(&Request::new().query(sql));
        }
        clients.into_iter().for_each(Client::reset);
        if round % 10 == 0 {
            admin.values(&format!(
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{}'",
                place.role()
            ));
        }
        assert!(metric(&proxy, "pgusher_server_connections") < 3.5);
    }
    let mut clients: Vec<_> = (0..3).map(|_| proxy.connect("four").login()).collect();
    for client in &mut clients {
        client.exec("begin");
    }
    assert_eq!(place.server_pids(&mut admin).len(), 3);
    drop(clients);
    eventually("nothing is left", || {
        metric(&proxy, "pgusher_server_connections") < 0.5
            && place.server_pids(&mut admin).is_empty()
    });
    assert!(metric(&proxy, "pgusher_budget_waiting") < 0.5);
}

//! `max_running_statements`: how many statements run at the same time on a server of a cluster.

mod found;
mod kept;
mod leaving;

use crate::{
    harness::{
        Client, Fields, Mode, Place, Postgres, Proxy, Request, Tenant, eventually,
        frames::{code, firsts},
        proxy::Builder,
    },
    pin_limits::{metrics, sum},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
};

/// Tenants of one place, whose cluster runs so many statements, with an admin listener.
struct Stage {
    proxy: Proxy,
    place: Place,
}

impl Stage {
    fn of<const N: usize>(
        limit: u32,
        tenants: [&str; N],
        change: impl Fn(Tenant) -> Tenant,
    ) -> Self {
        Self::with(tenants, change, |proxy| {
            proxy.cluster("max_running_statements", limit)
        })
    }

    fn with<const N: usize>(
        tenants: [&str; N],
        change: impl Fn(Tenant) -> Tenant,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let place = Postgres::shared().place();
        let tenants = tenants.map(|id| change(Tenant::new(id, &place).pool_size(40)));
        let proxy = Proxy::of(tenants).cluster("max_server_connections", 400);
        let proxy = configure(proxy).admin().start();
        place
            .direct()
            .login()
            .exec("create table held (n int); create table free (n int); create table runs (began timestamptz, ended timestamptz)");
        Self { proxy, place }
    }

    /// For one tenant, `acme`, in this mode.
    fn one(limit: u32, mode: Mode) -> Self {
        Self::of(limit, ["acme"], |tenant| tenant.mode(mode))
    }

    fn client(&self, tenant: &str) -> Client {
        self.proxy.connect(tenant).login()
    }

    /// Locks the table `held`, past the proxy.
    fn lock(&self) -> Client {
        let mut holder = self.place.direct().login();
        holder.exec("begin; lock table held");
        holder
    }

    /// How many of the place's statements wait for a lock.
    fn locked_out(&self) -> String {
        let role = self.place.role();
        self.place.admin().value(&format!(
            "select count(*) from pg_stat_activity where usename = '{role}' and wait_event_type = 'Lock'"
        ))
    }

    /// A client of a tenant whose statement waits for that lock.
    fn stuck(&self, tenant: &str) -> Client {
        let before = self.locked_out();
        let mut client = self.client(tenant);
        client.send(&Request::new().query(STUCK));
        eventually("it waits for the lock", || self.locked_out() != before);
        client
    }

    fn figure(&self, name: &str, label: &str) -> f64 {
        sum(&metrics(&self.proxy), name, label)
    }

    /// How often a statement had to wait, was refused, was excused or forgiven.
    fn counted(&self, result: &str) -> f64 {
        let text = metrics(&self.proxy);
        let name = format!(
            "pgusher_limited_total{{limit=\"max_running_statements\",result=\"{result}\"}} "
        );
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0.0, |count| count.parse().unwrap())
    }

    /// Sends a request, and returns when it has had to wait.
    fn send_and_wait(&self, client: &mut Client, request: &Request) {
        let before = self.counted("waited");
        client.send(request);
        eventually("it waits", || self.counted("waited") > before);
    }

    /// Nothing runs that is counted, and nobody waits.
    fn is_at_rest(&self) {
        eventually("nothing runs", || {
            self.figure("pgusher_running_statements", "") < 0.5
                && self.figure("pgusher_running_waiting", "") < 0.5
        });
    }
}

const STUCK: &str = "select count(*) from held";

/// A statement that tells when it ran.
const RUN: &str = "with a as materialized (select clock_timestamp() as began), \
    b as materialized (select began, pg_sleep(0.02)::text as slept from a) \
    insert into runs select began, clock_timestamp() from b where slept = ''";

/// How many ran at the same time, at most.
fn most_at_once(client: &mut Client) -> f64 {
    let sql = "select max(running) from (select sum(step) over (order by at, step) as running from \
         (select began as at, 1 as step from runs union all select ended, -1 from runs) s) t";
    client.value(sql).parse().unwrap()
}

fn assert_says(error: &Fields, code: &str, says: &[&str]) {
    assert_eq!(
        (error.severity(), error.code()),
        ("ERROR", code),
        "{error:?}"
    );
    for text in says {
        assert!(error.text().contains(text), "{error:?} does not say {text}");
    }
}

#[test]
fn of_forty_clients_as_many_statements_run_as_may() {
    for mode in [Mode::Transaction, Mode::Session] {
        let stage = Stage::one(3, mode);
        let mut clients: Vec<_> = (0..40).map(|_| stage.client("acme")).collect();
        for (at, client) in clients.iter_mut().enumerate() {
            client.send(&match at % 5 {
                0 => Request::new().query(&format!("begin; {RUN}; commit")),
                1 => Request::new().run(RUN, &[]).sync(),
                2 => Request::new().query("begin").query(RUN).query("commit"),
                3 => Request::new().query(RUN).query(RUN).run(RUN, &[]).sync(),
                _ => Request::new().query(RUN),
            });
        }
        for (at, client) in clients.iter_mut().enumerate() {
            for _ in 0..if matches!(at % 5, 2 | 3) { 3 } else { 1 } {
                assert_eq!(code(&client.until_ready()), "", "{at}");
            }
        }
        let client = &mut clients[0];
        assert_eq!(client.value("select count(*) from runs"), "56");
        let most = most_at_once(client);
        // What takes a second on a busy machine is taken to wait for something.
        assert!(most <= 3.0 + stage.counted("forgiven"), "{most}");
        assert!(stage.counted("waited") > 0.0);
        drop(clients);
        stage.is_at_rest();
    }
}

/// Clients of a tenant that never stop asking.
struct Flood {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

impl Flood {
    fn of(stage: &Stage, tenant: &str, clients: usize, request: fn() -> Request) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let clients = (0..clients).map(|_| {
            let mut client = stage.client(tenant);
            let (stop, served): (_, Arc<AtomicU64>) = (Arc::clone(&stop), Arc::clone(&served));
            thread::spawn(move || {
                while !stop.load(SeqCst) {
                    assert_eq!(code(&client.ask(&request())), "");
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
        flood.goes_on(40);
        flood
    }

    fn served(&self) -> u64 {
        self.served.load(SeqCst)
    }

    fn goes_on(&self, more: u64) {
        let until = self.served() + more;
        eventually("the flood goes on", || self.served() >= until);
    }

    fn end(self) {
        self.stop.store(true, SeqCst);
        for client in self.clients {
            client.join().unwrap();
        }
    }
}

#[test]
fn a_quiet_tenant_does_not_wait_behind_a_flood() {
    let stage = Stage::of(2, ["flood", "quiet"], |tenant| tenant);
    let flood = Flood::of(&stage, "flood", 40, || {
        Request::new().query("select pg_sleep(0.02)")
    });
    let mut quiet = stage.client("quiet");
    let (rounds, before) = (50, flood.served());
    for _ in 0..rounds {
        assert_eq!(quiet.value("select 'served'"), "served");
    }
    // In the order of coming it were forty for each.
    let flooded = flood.served() - before;
    assert!(flooded < 10 * rounds, "{flooded} beside {rounds}");
    assert!(stage.counted("excused") > 0.0);
    flood.end();
    drop(quiet);
    stage.is_at_rest();
}

#[test]
fn equal_floods_get_equal_time() {
    let stage = Stage::of(2, ["one", "two"], |tenant| tenant);
    let one = Flood::of(&stage, "one", 30, || {
        Request::new().query("select pg_sleep(0.005)")
    });
    let two = Flood::of(&stage, "two", 4, || {
        Request::new().query("select pg_sleep(0.005)")
    });
    let before = (one.served(), two.served());
    two.goes_on(200);
    let (ones, twos) = (one.served() - before.0, two.served() - before.1);
    assert!(
        ones < 2 * twos,
        "thirty clients had {ones}, four had {twos}"
    );
    one.end();
    two.end();
}

#[test]
fn a_statement_within_a_transaction_never_waits() {
    for mode in [Mode::Transaction, Mode::Session] {
        let stage = Stage::one(1, mode);
        let mut within = stage.client("acme");
        within.exec("begin");
        within.exec("insert into free values (1)");
        let mut waiter = stage.client("acme");
        waiter.is_in_step();
        let mut lock = stage.lock();
        let mut stuck = stage.stuck("acme");
        let count = Request::new().query("select count(*) from free");
        stage.send_and_wait(&mut waiter, &count);
        let before = stage.counted("waited");
        within.exec("insert into free values (2)");
        let batch = Request::new()
            .run("insert into free values (3)", &[])
            .flush();
        within.send(&batch);
        within.until('C');
        assert_eq!(code(&within.ask(&Request::new().sync())), "");
        within.exec("commit");
        assert!(stage.counted("waited") <= before, "it waited");
        lock.exec("commit");
        assert_eq!(code(&stuck.until_ready()), "");
        assert_eq!(code(&waiter.until_ready()), "");
        drop((within, waiter, stuck));
        stage.is_at_rest();
    }
}

#[test]
fn a_transaction_that_has_only_begun_waits_before_its_first_statement() {
    let stage = Stage::of(1, ["acme"], |tenant| {
        tenant.set("query_wait_timeout", "700ms")
    });
    let mut lock = stage.lock();
    let mut stuck = stage.stuck("acme");
    let mut begun = stage.client("acme");
    begun.exec("begin");
    let says = ["max_running_statements of the tenant's cluster, 1,"];
    assert_says(&begun.fails("select 1"), "53300", &says);
    assert_eq!(begun.status, 'E', "the transaction has failed");
    begun.exec("rollback");
    lock.exec("commit");
    assert_eq!(code(&stuck.until_ready()), "");
    begun.exec("begin");
    begun.exec("select 1");
    begun.exec("commit");
    begun.is_in_step();
}

#[test]
fn who_waits_for_a_lock_of_the_same_tenant_does_not_keep_it_from_coming_to_an_end() {
    let stage = Stage::one(2, Mode::Transaction);
    let mut holder = stage.client("acme");
    holder.exec("begin; lock table held");
    let mut stuck: Vec<_> = (0..6).map(|_| stage.client("acme")).collect();
    for client in &mut stuck {
        client.send(&Request::new().query(STUCK));
    }
    eventually("they wait for the lock", || stage.locked_out() != "0");
    holder.exec("insert into held values (1)");
    holder.exec("commit");
    for client in &mut stuck {
        assert_eq!(firsts(&client.until_ready()), ["1"]);
    }
}

#[test]
fn a_lock_of_a_session_is_given_back_although_others_wait_for_it() {
    for mode in [Mode::Transaction, Mode::Session] {
        let stage = Stage::one(1, mode);
        let mut holder = stage.client("acme");
        let number = stage
            .place
            .role()
            .trim_start_matches(|c: char| !c.is_ascii_digit());
        let key: u32 = number.parse().unwrap();
        holder.exec(&format!("select pg_advisory_lock(77, {key})"));
        let mut waiter = stage.client("acme");
        waiter.send(&Request::new().query(&format!("select pg_advisory_lock(77, {key})")));
        eventually("it waits for the lock", || stage.locked_out() != "0");
        holder.exec(&format!("select pg_advisory_unlock(77, {key})"));
        assert_eq!(code(&waiter.until_ready()), "");
    }
}

#[test]
fn what_waits_within_postgres_does_not_stop_other_tenants() {
    let stage = Stage::of(2, ["stuck", "sleepy", "other"], |tenant| tenant);
    let mut lock = stage.lock();
    let mut stuck: Vec<_> = (0..20).map(|_| stage.client("stuck")).collect();
    for client in &mut stuck {
        client.send(&Request::new().query(STUCK));
    }
    let mut sleepers: Vec<_> = (0..10).map(|_| stage.client("sleepy")).collect();
    for client in &mut sleepers {
        client.send(&Request::new().query("select pg_sleep(3600)"));
    }
    eventually("they wait for the lock", || stage.locked_out() != "0");
    let mut others: Vec<_> = (0..3).map(|_| stage.client("other")).collect();
    for round in 0..20 {
        for client in &mut others {
            client.send(&Request::new().query(&format!("select {round}")));
        }
        for client in &mut others {
            assert_eq!(firsts(&client.until_ready()), [round.to_string()]);
        }
    }
    sleepers.into_iter().for_each(Client::reset);
    lock.exec("commit");
    for client in &mut stuck {
        assert_eq!(code(&client.until_ready()), "");
    }
    drop((stuck, others));
    stage.is_at_rest();
}

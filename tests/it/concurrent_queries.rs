//! `max_concurrent_queries`: how many transactions of a tenant, or of a key, run at the same time.

use crate::harness::{
    Client, Fields, Key, Mode, Postgres, Proxy, Request, Tenant, eventually,
    frames::{code, error, firsts},
    http::Http,
};

/// A proxy for `acme`, with an admin listener.
fn limited(change: impl FnOnce(Tenant) -> Tenant) -> Proxy {
    let tenant = Tenant::new("acme", &Postgres::shared().place()).pool_size(10);
    Proxy::of([change(tenant)]).admin().start()
}

/// One transaction at the same time.
fn single() -> Proxy {
    limited(|tenant| tenant.set("max_concurrent_queries", 1))
}

/// How often a limit had a client wait, or refused one.
fn counted(proxy: &Proxy, limit: &str, result: &str) -> u64 {
    let text = Http::new(proxy.admin_port()).get("/metrics").body;
    let name = format!("pgusher_limited_total{{limit=\"{limit}\",result=\"{result}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}

/// Sends a query, and returns when it waits.
fn send_and_wait(proxy: &Proxy, client: &mut Client, sql: &str) {
    let waited = || counted(proxy, "max_concurrent_queries", "waited");
    let before = waited();
    client.send(&Request::new().query(sql));
    eventually("it waits", || waited() > before);
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

/// A transaction that tells when it ran.
const RUN: &str = "with a as materialized (select clock_timestamp() as began), \
    b as materialized (select began, pg_sleep(0.01)::text as slept from a) \
    insert into runs select began, clock_timestamp() from b where slept = ''";

/// How many ran at the same time, at most.
fn most_at_once(client: &mut Client) -> String {
    client.value(
        "select max(running) from (select sum(step) over (order by at, step) as running from \
         (select began as at, 1 as step from runs union all select ended, -1 from runs) s) t",
    )
}

fn make_runs(client: &mut Client) {
    client.exec("create table runs (began timestamptz, ended timestamptz)");
}

#[test]
fn of_two_hundred_clients_as_many_run_at_once_as_may_and_all_are_served() {
    let proxy = limited(|tenant| tenant.set("max_concurrent_queries", 5));
    make_runs(&mut proxy.place("acme").direct().login());
    let mut clients: Vec<_> = (0..200).map(|_| proxy.connect("acme").login()).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        client.send(&match at % 4 {
            0 => Request::new().query(&format!("begin; {RUN}; commit")),
            1 => Request::new().run(RUN, &[]).sync(),
            2 => Request::new().query("begin").query(RUN).query("commit"),
            _ => Request::new().query(RUN),
        });
    }
    for (at, client) in clients.iter_mut().enumerate() {
        for _ in 0..if at % 4 == 2 { 3 } else { 1 } {
            assert_eq!(code(&client.until_ready()), "", "{at}");
        }
    }
    let client = &mut clients[0];
    assert_eq!(client.value("select count(*) from runs"), "200");
    assert_eq!(most_at_once(client), "5");
    assert!(counted(&proxy, "max_concurrent_queries", "waited") >= 190);
    assert_eq!(counted(&proxy, "max_concurrent_queries", "refused"), 0);
}

#[test]
fn a_statement_within_a_transaction_never_waits() {
    let proxy = single();
    let mut holder = proxy.connect("acme").login();
    holder.exec("create table t (n int)");
    holder.exec("begin");
    let mut waiter = proxy.connect("acme").login();
    send_and_wait(&proxy, &mut waiter, "select count(*) from t");
    holder.exec("insert into t values (1)");
    holder.exec("insert into t values (2)");
    holder.exec("commit");
    assert_eq!(
        firsts(&waiter.until_ready()),
        ["2"],
        "it ran behind the other"
    );
    holder.is_in_step();
}

#[test]
fn who_waits_is_served_in_the_order_of_coming() {
    let proxy = single();
    let mut holder = proxy.connect("acme").login();
    holder.exec("create table served (at serial, who int)");
    holder.exec("begin");
    let mut waiters: Vec<_> = (0..5).map(|_| proxy.connect("acme").login()).collect();
    for (number, waiter) in (0..).zip(&mut waiters) {
        let sql = format!("insert into served (who) values ({number})");
        send_and_wait(&proxy, waiter, &sql);
    }
    holder.exec("commit");
    for waiter in &mut waiters {
        assert_eq!(code(&waiter.until_ready()), "");
    }
    let order = holder.values("select who from served order by at");
    assert_eq!(order, ["0", "1", "2", "3", "4"]);
}

#[test]
fn who_waits_too_long_is_told_the_limit_and_goes_on_in_step() {
    for mode in [Mode::Transaction, Mode::Session] {
        let proxy = limited(|tenant| {
            let tenant = tenant.mode(mode).set("max_concurrent_queries", 1);
            tenant.set("query_wait_timeout", "500ms")
        });
        let mut holder = proxy.connect("acme").login();
        let mut waiter = proxy.connect("acme").login();
        waiter.is_in_step();
        holder.exec("begin");
        let says = [
            "max_concurrent_queries of the tenant, 1,",
            "query_wait_timeout, 500ms",
        ];
        assert_says(&waiter.fails("select 1"), "53300", &says);
        assert_eq!(waiter.status, 'I');
        let batch = Request::new()
            .run("select 2", &[])
            .run("select 3", &[])
            .sync();
        let frames = waiter.ask(&batch);
        assert_says(&error(&frames).unwrap(), "53300", &says);
        assert_eq!(frames.len(), 2, "{frames:?}");
        holder.exec("commit");
        waiter.is_in_step();
        assert_eq!(firsts(&waiter.ask(&batch)), ["2", "3"]);
        assert_eq!(counted(&proxy, "max_concurrent_queries", "refused"), 2);
    }
}

#[test]
fn a_session_that_keeps_its_server_gets_around_it_by_nothing_sent_ahead() {
    let proxy = limited(|tenant| {
        let tenant = tenant.mode(Mode::Session).set("max_concurrent_queries", 1);
        tenant.set("query_wait_timeout", "300ms")
    });
    let mut holder = proxy.connect("acme").login();
    let mut other = proxy.connect("acme").login();
    other.is_in_step();
    holder.exec("begin");
    let query = |ahead: Request| ahead.query("select 1");
    other.send(&query(Request::new().flush()));
    assert_eq!(code(&other.until_ready()), "53300");
    other.send(&query(Request::new().sync()));
    assert_eq!(code(&other.until_ready()), "", "the Sync");
    assert_eq!(code(&other.until_ready()), "53300");
    holder.exec("commit");
    other.is_in_step();
}

#[test]
fn no_more_wait_than_may() {
    let proxy = limited(|tenant| {
        tenant
            .set("max_concurrent_queries", 1)
            .set("max_waiting", 1)
    });
    let mut holder = proxy.connect("acme").login();
    holder.exec("begin");
    let mut waiter = proxy.connect("acme").login();
    send_and_wait(&proxy, &mut waiter, "select 'served'");
    let mut refused = proxy.connect("acme").login();
    let says = ["max_waiting of the tenant, 1,", "max_concurrent_queries"];
    assert_says(&refused.fails("select 1"), "53300", &says);
    holder.exec("commit");
    assert_eq!(firsts(&waiter.until_ready()), ["served"]);
    refused.is_in_step();
    assert_eq!(counted(&proxy, "max_waiting", "refused"), 1);
}

#[test]
fn a_cancel_ends_the_wait_and_leaves_the_queue() {
    for mode in [Mode::Transaction, Mode::Session] {
        let proxy = limited(|tenant| tenant.mode(mode).set("max_concurrent_queries", 1));
        let mut holder = proxy.connect("acme").login();
        let mut first = proxy.connect("acme").login();
        let mut second = proxy.connect("acme").login();
        for client in [&mut first, &mut second] {
            client.is_in_step();
        }
        holder.exec("begin");
        send_and_wait(&proxy, &mut first, "select 'first'");
        send_and_wait(&proxy, &mut second, "select 'second'");
        proxy.connect("acme").cancel(&first);
        assert_eq!(code(&first.until_ready()), "57014");
        holder.exec("commit");
        assert_eq!(firsts(&second.until_ready()), ["second"]);
        first.is_in_step();
    }
}

#[test]
fn clients_that_die_leave_no_place_taken() {
    for mode in [Mode::Transaction, Mode::Session] {
        let proxy = limited(|tenant| tenant.mode(mode).set("max_concurrent_queries", 2));
        proxy.connect("acme").login().exec("create table t (n int)");
        for round in 0..60 {
            let mut client = proxy.connect("acme").login();
            match round % 5 {
                0 => drop(client.exec("begin")),
                1 => drop(client.query("select 1/0")),
                2 => client.send(&Request::new().query("select pg_sleep(600)")),
                3 => client.send(&Request::new().run("select pg_sleep(600)", &[]).sync()),
                _ => client.send(&Request::new().query("select 1")),
            }
            client.reset();
        }
        let mut holders = [proxy.connect("acme").login(), proxy.connect("acme").login()];
        for holder in &mut holders {
            holder.exec("begin");
        }
        let mut dying = proxy.connect("acme").login();
        send_and_wait(&proxy, &mut dying, "insert into t values (1)");
        let mut waiter = proxy.connect("acme").login();
        send_and_wait(&proxy, &mut waiter, "select count(*) from t");
        dying.reset();
        holders[0].exec("commit");
        assert_eq!(
            firsts(&waiter.until_ready()),
            ["0"],
            "the dead one did not run"
        );
        holders[1].exec("commit");
    }
}

#[test]
fn a_raised_limit_has_who_waits_go_on_at_once() {
    let mut proxy = single();
    let mut holder = proxy.connect("acme").login();
    holder.exec("begin");
    let mut waiters = [proxy.connect("acme").login(), proxy.connect("acme").login()];
    send_and_wait(&proxy, &mut waiters[0], "begin");
    send_and_wait(&proxy, &mut waiters[1], "select 'second'");
    proxy.reload(|file| file.set_tenant("acme", "max_concurrent_queries", 2));
    assert_eq!(code(&waiters[0].until_ready()), "");
    proxy.reload(|file| file.set_tenant("acme", "max_concurrent_queries", 0));
    assert_eq!(firsts(&waiters[1].until_ready()), ["second"]);
    waiters[0].exec("commit");
    holder.exec("commit");
}

#[test]
fn a_lowered_limit_ends_no_transaction_and_holds_for_the_next() {
    let mut proxy = limited(|tenant| tenant.set("max_concurrent_queries", 3));
    let mut clients: Vec<_> = (0..3).map(|_| proxy.connect("acme").login()).collect();
    for client in &mut clients {
        client.exec("begin");
    }
    proxy.reload(|file| file.set_tenant("acme", "max_concurrent_queries", 1));
    let mut next = proxy.connect("acme").login();
    eventually("the new limit holds", || {
        proxy.log().contains("configuration reloaded")
    });
    send_and_wait(&proxy, &mut next, "select txid_current()");
    let mut before = String::new();
    for client in &mut clients {
        before = client.value("select txid_current()");
        client.exec("commit");
    }
    let [after] = firsts(&next.until_ready()).try_into().unwrap();
    let number = |text: &str| text.parse::<u64>().unwrap();
    assert!(number(&after) > number(&before), "it ran behind the last");
}

#[test]
fn a_limit_that_is_set_while_sessions_run_holds_for_their_next_transactions() {
    let mut proxy = limited(|tenant| tenant);
    let mut clients: Vec<_> = (0..8).map(|_| proxy.connect("acme").login()).collect();
    make_runs(&mut clients[0]);
    proxy.reload(|file| file.set_tenant("acme", "max_concurrent_queries", 2));
    eventually("the new limit holds", || {
        proxy.log().contains("configuration reloaded")
    });
    for client in &mut clients {
        client.send(&Request::new().query(RUN));
    }
    for client in &mut clients {
        assert_eq!(code(&client.until_ready()), "");
    }
    assert_eq!(most_at_once(&mut clients[0]), "2");
}

#[test]
fn a_key_has_a_limit_below_its_tenants() {
    let proxy = limited(|tenant| {
        tenant
            .set("max_concurrent_queries", 3)
            .set("query_wait_timeout", "1s")
            .key(Key::new("narrow").set("max_concurrent_queries", 1))
            .key(Key::new("wide"))
    });
    let login = |key: &str| proxy.connect("acme").password(key).login();
    let mut narrow = [login("narrow"), login("narrow")];
    narrow[0].exec("begin");
    let says = ["max_concurrent_queries of the API key, 1,"];
    assert_says(&narrow[1].fails("select 1"), "53300", &says);
    let mut wide = [login("wide"), login("wide"), login("wide")];
    wide[0].exec("begin");
    wide[1].exec("begin");
    let says = ["max_concurrent_queries of the tenant, 3,"];
    assert_says(&wide[2].fails("select 1"), "53300", &says);
    narrow[0].exec("commit");
    wide[2].is_in_step();
    narrow[1].is_in_step();
}

#[test]
fn readers_count_with_writers() {
    let place = Postgres::shared().place();
    let reader = place.add_reader();
    let tenant = Tenant::new("acme", &place)
        .set("max_concurrent_queries", 1)
        .set("query_wait_timeout", "1s")
        .set("read_only_role", reader)
        .set("read_only_password", crate::harness::place::ROLE_PASSWORD)
        .key(Key::new("writes"))
        .key(Key::new("reads").set("scope", "read_only"));
    let proxy = Proxy::of([tenant]).start();
    let mut writer = proxy.connect("acme").password("writes").login();
    let mut reader = proxy.connect("acme").password("reads").login();
    writer.exec("begin");
    assert_says(
        &reader.fails("select 1"),
        "53300",
        &["max_concurrent_queries"],
    );
    writer.exec("commit");
    reader.exec("begin");
    assert_says(
        &writer.fails("select 1"),
        "53300",
        &["max_concurrent_queries"],
    );
    reader.exec("commit");
    writer.is_in_step();
}

#[test]
fn a_session_that_keeps_its_server_takes_a_place_for_its_transactions_only() {
    for mode in [Mode::Session, Mode::Transaction] {
        let proxy = limited(|tenant| tenant.mode(mode).set("max_concurrent_queries", 1));
        let mut keepers: Vec<_> = (0..3).map(|_| proxy.connect("acme").login()).collect();
        for keeper in &mut keepers {
            keeper.exec("create temp table mine (n int)");
        }
        for round in 0..3 {
            for keeper in &mut keepers {
                keeper.exec("begin");
                keeper.exec("insert into mine values (1)");
                keeper.exec("commit");
                let count = Request::new().run("select count(*) from mine", &[]).sync();
                assert_eq!(firsts(&keeper.ask(&count)), [(round + 1).to_string()]);
            }
        }
        let (first, second) = keepers.split_at_mut(1);
        first[0].exec("begin");
        send_and_wait(&proxy, &mut second[0], "insert into mine values (1)");
        first[0].exec("commit");
        assert_eq!(code(&second[0].until_ready()), "", "{mode:?}");
        keepers.iter_mut().for_each(Client::is_in_step);
    }
}

/// The first message that a waiting client gets.
fn notice(waiter: &mut Client) -> String {
    let frame = waiter.next();
    assert_eq!(frame.kind(), 'N', "{frame:?}");
    let notice = frame.fields();
    assert_eq!((notice.severity(), notice.code()), ("NOTICE", "00000"));
    notice.text()
}

#[test]
fn a_client_that_waits_long_is_told_what_for_once() {
    for mode in [Mode::Transaction, Mode::Session] {
        let proxy = limited(|tenant| tenant.mode(mode).set("max_concurrent_queries", 1));
        let mut holder = proxy.connect("acme").login();
        let mut waiter = proxy.connect("acme").login();
        waiter.is_in_step();
        holder.exec("begin");
        waiter.send(&Request::new().query("select 'at last'"));
        let text = notice(&mut waiter);
        assert!(
            text.contains("max_concurrent_queries of the tenant, 1,"),
            "{text}"
        );
        holder.exec("commit");
        let frames = waiter.until_ready();
        assert_eq!(firsts(&frames), ["at last"]);
        assert!(frames.iter().all(|frame| frame.kind() != 'N'), "{frames:?}");
    }
}

#[test]
fn a_client_that_waits_long_for_a_server_is_told_what_for() {
    let proxy = limited(|tenant| tenant.pool_size(1));
    let mut holder = proxy.connect("acme").login();
    holder.exec("begin");
    let mut waiter = proxy.connect("acme").login();
    waiter.send(&Request::new().query("select 'at last'"));
    let text = notice(&mut waiter);
    assert!(text.contains("pool_size of the tenant, 1,"), "{text}");
    holder.exec("commit");
    assert_eq!(firsts(&waiter.until_ready()), ["at last"]);
}

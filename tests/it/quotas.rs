//! Connection quotas: of the process, a tenant, a key, a pool, a cluster.

use crate::harness::{
    Client, Fields, Key, Place, Postgres, Proxy, Request, Tenant, eventually, eventually_some,
    frames::{code, error, firsts},
    proxy::one_tenant,
};

fn place() -> Place {
    Postgres::shared().place()
}

fn assert_names(error: &Fields, limit: &str) {
    assert_eq!(
        (error.severity(), error.code()),
        ("FATAL", "53300"),
        "{error:?}"
    );
    assert!(
        error.text().contains(limit),
        "{error:?} does not name {limit}"
    );
}

fn leave(mut client: Client) {
    client.send(&Request::new().terminate());
    client.rest();
}

#[test]
fn a_tenant_has_so_many_clients() {
    let proxy = Proxy::of([
        Tenant::new("acme", &place()).set("max_client_connections", 2),
        Tenant::new("other", &place()),
    ])
    .start();
    let mut clients = vec![proxy.connect("acme").login(), proxy.connect("acme").login()];
    assert_names(&proxy.connect("acme").refused(), "max_client_connections");
    proxy.connect("other").login().is_in_step();
    leave(clients.pop().unwrap());
    let again = eventually_some("the place is free again", || {
        proxy.connect("acme").try_login().ok()
    });
    assert_names(&proxy.connect("acme").refused(), "max_client_connections");
    clients.push(again);
    clients.iter_mut().for_each(Client::is_in_step);
}

#[test]
fn the_process_has_so_many_clients() {
    let proxy = Proxy::of([Tenant::new("acme", &place())])
        .set("max_client_connections", 3)
        .set("reserved_client_connections", 0)
        .start();
    let mut clients: Vec<_> = (0..3).map(|_| proxy.connect("acme").login()).collect();
    assert_names(&proxy.connect("acme").refused(), "max_client_connections");
    clients.pop().unwrap().reset();
    eventually("the place is free again", || {
        proxy.connect("acme").try_login().is_ok()
    });
    clients.iter_mut().for_each(Client::is_in_step);
}

#[test]
fn who_has_not_shown_a_key_takes_no_place_of_the_process() {
    let proxy = Proxy::of([Tenant::new("acme", &place())])
        .set("max_client_connections", 2)
        .set("reserved_client_connections", 0)
        .start();
    let connect = proxy.connect("acme");
    let silent = (0..5).map(|_| {
        let mut client = connect.bare().unwrap();
        client.send_bytes(&connect.startup_packet());
        assert_eq!(client.next().kind(), 'R', "it is asked for a key");
        client
    });
    let silent: Vec<_> = silent.collect();
    let mut clients = [connect.login(), connect.login()];
    assert_names(&connect.refused(), "max_client_connections");
    clients.iter_mut().for_each(Client::is_in_step);
    drop(silent);
}

#[test]
fn some_places_are_kept_for_the_operator() {
    let proxy = Proxy::of([Tenant::new("acme", &place())])
        .set("max_client_connections", 4)
        .set("reserved_client_connections", 2)
        .set("operator_addresses", vec!["127.0.0.5/32"])
        .start();
    let all = proxy.connect("acme").from("127.0.0.6");
    let operator = proxy.connect("acme").from("127.0.0.5");
    let clients = [all.login(), all.login()];
    assert_names(&all.refused(), "max_client_connections");
    let operators = [operator.login(), operator.login()];
    assert_names(&operator.refused(), "max_client_connections");
    drop((clients, operators));
}

#[test]
fn a_key_has_so_many_clients() {
    let tenant = Tenant::new("acme", &place())
        .key(Key::new("narrow").set("max_client_connections", 1))
        .key(Key::new("wide"));
    let proxy = Proxy::of([tenant]).start();
    let narrow = proxy.connect("acme").password("narrow");
    let client = narrow.login();
    assert_names(&narrow.refused(), "max_client_connections");
    proxy.connect("acme").password("wide").login().is_in_step();
    leave(client);
    eventually("the place is free again", || narrow.try_login().is_ok());
}

#[test]
fn a_wrong_key_uses_no_place() {
    let proxy = Proxy::of([Tenant::new("acme", &place()).set("max_client_connections", 1)]).start();
    for _ in 0..5 {
        assert_eq!(
            proxy.connect("acme").password("wrong").refused().code(),
            "28P01"
        );
    }
    let client = proxy.connect("acme").login();
    // A full tenant tells so only to who has the key.
    assert_eq!(
        proxy.connect("acme").password("wrong").refused().code(),
        "28P01"
    );
    leave(client);
}

#[test]
fn a_client_waits_for_a_server_no_longer_than_it_should() {
    let proxy = one_tenant(|tenant| tenant.pool_size(1).set("query_wait_timeout", "3s"));
    let mut holder = proxy.connect("acme").login();
    holder.exec("begin");
    let mut waiter = proxy.connect("acme").login();
    waiter.send(&Request::new().query("select 'too late'"));
    let error = error(&waiter.until('E')).unwrap();
    assert_eq!(error.code(), "53300", "{error:?}");
    assert!(
        error.text().contains("query_wait_timeout") || error.text().contains("pool_size"),
        "{error:?}"
    );
    holder.exec("commit");
    // Either the connection ends, or it goes on in step.
    match waiter.next_or_end() {
        None => assert_eq!(error.severity(), "FATAL"),
        Some(frame) => {
            assert_eq!((frame.kind(), waiter.status), ('Z', 'I'));
            waiter.is_in_step();
        }
    }
    proxy.connect("acme").login().is_in_step();
}

#[test]
fn a_client_that_dies_while_it_waits_for_a_server_gives_its_turn_on() {
    let proxy = one_tenant(|tenant| tenant.pool_size(1));
    let mut holder = proxy.connect("acme").login();
    holder.exec("create table t (n int)");
    holder.exec("begin");
    let mut dead: Vec<_> = (0..3).map(|_| proxy.connect("acme").login()).collect();
    for client in &mut dead {
        client.send(&Request::new().query("insert into t values (1)"));
    }
    let left = || proxy.log().matches("client disconnected").count();
    let before = left();
    dead.into_iter().for_each(Client::reset);
    eventually("they are gone while nothing is free", || {
        left() == before + 3
    });
    holder.exec("commit");
    assert_eq!(holder.value("select count(*) from t"), "0");
}

#[test]
fn a_pool_is_never_larger_than_it_may_be() {
    let proxy = one_tenant(|tenant| tenant.pool_size(3));
    let place = proxy.place("acme");
    let mut clients: Vec<_> = (0..12).map(|_| proxy.connect("acme").login()).collect();
    for client in &mut clients {
        client.send(&Request::new().query("select pg_sleep(0.05)"));
    }
    let mut admin = place.admin();
    let most = (0..20)
        .map(|_| place.server_pids(&mut admin).len())
        .max()
        .unwrap();
    assert!((1..=3).contains(&most), "{most} servers");
    for client in &mut clients {
        assert_eq!(code(&client.until_ready()), "");
    }
}

#[test]
fn a_cluster_has_so_many_servers() {
    let tenants = ["one", "two"].map(|id| {
        Tenant::new(id, &place())
            .pool_size(2)
            .set("query_wait_timeout", "3s")
    });
    let proxy = Proxy::of(tenants)
        .cluster("max_server_connections", 2)
        .start();
    let mut holders = [proxy.connect("one").login(), proxy.connect("one").login()];
    for holder in &mut holders {
        holder.exec("begin");
    }
    let refusal = match proxy.connect("two").try_login() {
        Err(frames) => error(&frames).expect("an error"),
        Ok(mut client) => {
            client.send(&Request::new().query("select 1"));
            error(&client.until('E')).expect("an error")
        }
    };
    assert_eq!(refusal.code(), "53300", "{refusal:?}");
    assert!(
        refusal.text().contains("max_server_connections"),
        "{refusal:?}"
    );
    for holder in &mut holders {
        holder.exec("commit");
    }
    // The servers of the first tenant are idle now; the other tenant must get one of their places.
    eventually("the other tenant is served", || {
        proxy
            .connect("two")
            .try_login()
            .is_ok_and(|mut client| code(&client.query("select 1")).is_empty())
    });
}

#[test]
fn raised_limits_hold_at_once() {
    let mut proxy = Proxy::of([Tenant::new("acme", &place())
        .set("max_client_connections", 1)
        .pool_size(1)])
    .start();
    let mut holder = proxy.connect("acme").login();
    holder.exec("begin");
    assert_names(&proxy.connect("acme").refused(), "max_client_connections");
    proxy.reload(|file| {
        file.set_tenant("acme", "max_client_connections", 3);
        file.set_tenant("acme", "pool_size", 2);
    });
    let mut second = eventually_some("one more client", || proxy.connect("acme").try_login().ok());
    second.send(&Request::new().query("select 'by a second server'"));
    assert_eq!(firsts(&second.until_ready()), ["by a second server"]);
    holder.exec("commit");
}

#[test]
fn lowered_limits_end_nobody() {
    let mut proxy = Proxy::of([Tenant::new("acme", &place())
        .set("max_client_connections", 3)
        .pool_size(3)])
    .start();
    let mut clients: Vec<_> = (0..3).map(|_| proxy.connect("acme").login()).collect();
    for client in &mut clients {
        client.exec("begin");
    }
    proxy.reload(|file| {
        file.set_tenant("acme", "max_client_connections", 1);
        file.set_tenant("acme", "pool_size", 1);
    });
    for client in &mut clients {
        client.exec("select 1");
        client.exec("commit");
    }
    let place = proxy.place("acme");
    let mut admin = place.admin();
    eventually("no more than one server is left", || {
        place.server_pids(&mut admin).len() <= 1
    });
    clients.iter_mut().for_each(Client::is_in_step);
    assert_names(&proxy.connect("acme").refused(), "max_client_connections");
}

#[test]
fn waiters_are_served_in_the_order_they_came() {
    let proxy = one_tenant(|tenant| tenant.pool_size(1));
    let mut holder = proxy.connect("acme").login();
    holder.exec("create table served (at serial, who int); begin");
    let mut waiters: Vec<_> = (0..5).map(|_| proxy.connect("acme").login()).collect();
    for (number, waiter) in waiters.iter_mut().enumerate() {
        waiter.send(&Request::new().query(&format!("insert into served (who) values ({number})")));
        // The next is sent when this one surely waits: a pause is all that can be had from outside.
        std::thread::park_timeout(std::time::Duration::from_millis(100));
    }
    holder.exec("commit");
    for waiter in &mut waiters {
        assert_eq!(code(&waiter.until_ready()), "");
    }
    assert_eq!(
        holder.values("select who from served order by at"),
        ["0", "1", "2", "3", "4"]
    );
}

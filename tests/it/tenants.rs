//! Two tenants never share a server, whatever they do.

use crate::harness::{
    Mode, Postgres, Proxy, Request, Tenant,
    frames::{error, firsts},
};
use std::collections::BTreeMap;

fn tenants(ids: &[&str], mode: Mode) -> Vec<Tenant> {
    let place = |index: usize| match index % 2 {
        0 => Postgres::shared().place(),
        _ => Postgres::shared().schema(),
    };
    let tenant = |(index, id): (usize, &&str)| {
        Tenant::new(id, &place(index))
            .mode(mode)
            .pool_size(2)
            .set("tenant_setting", "app.tenant_id")
    };
    ids.iter().enumerate().map(tenant).collect()
}

#[test]
fn each_server_belongs_to_one_tenant() {
    for mode in [Mode::Session, Mode::Transaction, Mode::Statement] {
        let ids = ["one", "two", "three", "four"];
        let proxy = Proxy::of(tenants(&ids, mode)).start();
        let mut owners: BTreeMap<String, &str> = BTreeMap::new();
        for _ in 0..5 {
            let mut clients = ids.map(|id| (id, proxy.connect(id).login()));
            for (id, client) in &mut clients {
                let owner = owners.entry(client.server_pid()).or_insert(id);
                assert_eq!(owner, id, "a server went from one tenant to another");
                assert_eq!(client.value("select session_user"), proxy.place(id).role());
                assert_eq!(client.value("select current_setting('app.tenant_id')"), *id);
            }
            for (_, mut client) in clients {
                client.send(&Request::new().terminate());
                client.rest();
            }
        }
    }
}

#[test]
fn equal_names_mean_each_tenants_own() {
    let ids = ["one", "two", "three", "four"];
    let proxy = Proxy::of(tenants(&ids, Mode::Transaction)).start();
    let mut clients = ids.map(|id| (id, proxy.connect(id).login()));
    for (id, client) in &mut clients {
        client.exec(&format!(
            "create table mine (v text); insert into mine values ('{id}')"
        ));
        let frames = client.ask(
            &Request::new()
                .parse("same", "select v, $1::int from mine")
                .sync(),
        );
        assert_eq!(error(&frames), None);
    }
    for _ in 0..5 {
        for (id, client) in &mut clients {
            let frames = client.ask(&Request::new().run_prepared("same", &["1"]).sync());
            assert_eq!(firsts(&frames), [*id]);
            assert_eq!(client.value("select v from mine"), *id);
        }
    }
}

#[test]
fn a_tenant_cannot_reach_anothers_place() {
    let proxy = Proxy::of(tenants(&["one", "two"], Mode::Transaction)).start();
    let (one, two) = (proxy.place("one"), proxy.place("two"));
    let schema = two.schema_name().unwrap();
    proxy
        .connect("two")
        .login()
        .exec("create table secret (v text); insert into secret values ('two')");
    let mut client = proxy.connect("one").login();
    assert_eq!(
        client
            .fails(&format!("select * from {schema}.secret"))
            .code(),
        "42501"
    );
    assert_eq!(
        client.fails(&format!("set role {}", two.role())).code(),
        "42501"
    );
    let error = client.fails(&format!("set session authorization {}", two.role()));
    assert_eq!(error.code(), "42501");
    assert_eq!(
        proxy.connect("one").database(two.role()).refused().code(),
        "3D000"
    );
    assert_eq!(client.value("select session_user"), one.role());
}

#[test]
fn a_cancel_key_of_one_tenant_does_nothing_to_another() {
    let proxy = Proxy::of(tenants(&["one", "two"], Mode::Transaction)).start();
    let mut one = proxy.connect("one").login();
    one.exec("select 1");
    let mut two = proxy.connect("two").login();
    two.send(&Request::new().query("select 'alive', pg_sleep(0.7)"));
    for _ in 0..5 {
        proxy.connect("one").cancel(&one);
        proxy.connect("one").cancel_key(two.pid, &one.secret);
    }
    assert_eq!(firsts(&two.until_ready()), ["alive"]);
}

#[test]
fn one_tenants_full_pool_is_no_others_wait() {
    let proxy = Proxy::of(tenants(&["one", "two"], Mode::Transaction)).start();
    let mut holders: Vec<_> = (0..2).map(|_| proxy.connect("one").login()).collect();
    for holder in &mut holders {
        holder.exec("begin");
    }
    let mut waiters: Vec<_> = (0..5).map(|_| proxy.connect("one").login()).collect();
    for waiter in &mut waiters {
        waiter.send(&Request::new().query("select 1"));
    }
    for _ in 0..5 {
        proxy.connect("two").login().is_in_step();
    }
    for holder in &mut holders {
        holder.exec("commit");
    }
    for waiter in &mut waiters {
        assert_eq!(error(&waiter.until_ready()), None);
    }
}

#[test]
fn a_read_only_and_a_read_write_key_never_share_a_server() {
    use crate::harness::Key;
    let place = Postgres::shared().place();
    let reader = place.add_reader();
    let tenant = Tenant::new("acme", &place)
        .pool_size(1)
        .set("read_only_role", reader.as_str())
        .set("read_only_password", crate::harness::place::ROLE_PASSWORD)
        .key(Key::new("writer"))
        .key(Key::new("reader").set("scope", "read_only"));
    let proxy = Proxy::of([tenant]).start();
    for _ in 0..3 {
        for (key, role) in [("writer", place.role()), ("reader", &reader)] {
            let mut client = proxy.connect("acme").password(key).login();
            assert_eq!(client.value("select current_user"), role);
        }
    }
}

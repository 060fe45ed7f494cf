//! A change in the registry: who it concerns notices, nobody else does.

use crate::harness::{
    Client, Connect, DEADLINE, Place, Postgres, Proxy, Request, Tenant, books::Books, eventually,
    eventually_some, proxy_file::KEY,
};

/// A registry with `acme` in it, and a proxy.
fn acme() -> (Books, Proxy, Place) {
    let postgres = Postgres::shared();
    let books = Books::new(postgres);
    let proxy = books.proxy().start();
    books.add_cluster(postgres.endpoint());
    let place = postgres.place();
    books.add("acme", &place);
    (books, proxy, place)
}

fn found(connect: &Connect) -> Client {
    eventually_some("the tenant logs in", || connect.try_login().ok())
}

fn set_status(books: &Books, tenant: &str, status: &str) {
    let sql = format!("update pgusher.tenant set status = '{status}' where id = '{tenant}'");
    books.admin().exec(&sql);
}

#[test]
fn a_tenant_of_the_registry_works_and_a_new_one_is_found_though_it_was_asked_for_before() {
    let (books, proxy, place) = acme();
    let mut client = found(&proxy.connect("acme"));
    assert_eq!(client.value("select current_user"), place.role());
    let newer = proxy.connect("newer");
    assert_eq!(newer.refused().code(), "28P01");
    let place = Postgres::shared().place();
    books.add("newer", &place);
    let mut newer = found(&newer);
    assert_eq!(newer.value("select current_user"), place.role());
    client.is_in_step();
}

#[test]
fn a_revoked_key_ends_its_sessions_in_the_middle_of_a_query_and_no_others() {
    let (books, proxy, place) = acme();
    books.add_key("acme", "second", "another key");
    books.add("other", &Postgres::shared().place());
    let mut other = found(&proxy.connect("other"));
    let mut second = found(&proxy.connect("acme").password("another key"));
    let mut idle = found(&proxy.connect("acme"));
    let mut client = found(&proxy.connect("acme"));
    client.send(&Request::new().query("select pg_sleep(600)"));
    let sleeper = format!(
        "select pid from pg_stat_activity where usename = '{}' and wait_event = 'PgSleep'",
        place.role()
    );
    let mut admin = place.admin();
    eventually("the query runs", || !admin.values(&sleeper).is_empty());
    books.admin().exec(
        "update pgusher.api_key set status = 'revoked', revoked_at = now() where id = 'acme'",
    );
    for client in [&mut client, &mut idle] {
        let error = client.ends_with("57P01");
        assert!(
            error.text().contains("The API key was revoked."),
            "{error:?}"
        );
    }
    eventually("the query is ended", || admin.values(&sleeper).is_empty());
    assert_eq!(proxy.connect("acme").refused().code(), "28P01");
    second.is_in_step();
    other.is_in_step();
}

#[test]
fn a_key_that_expires_ends_its_sessions_and_no_others() {
    let (books, proxy, _) = acme();
    books.add_key("acme", "second", "another key");
    let mut second = found(&proxy.connect("acme").password("another key"));
    let mut idle = found(&proxy.connect("acme"));
    let mut client = found(&proxy.connect("acme"));
    client.send(&Request::new().query("select pg_sleep(600)"));
    books.admin().exec(
        "update pgusher.api_key set expires_at = now() + interval '1 s' where id = 'acme'; \
         update pgusher.api_key set expires_at = now() + interval '1 h' where id = 'second'",
    );
    for client in [&mut client, &mut idle] {
        let error = client.ends_with("57P01");
        let says = "The API key has expired.";
        assert!(error.text().contains(says), "{error:?}");
    }
    assert_eq!(proxy.connect("acme").refused().code(), "28P01");
    second.is_in_step();
}

#[test]
fn a_suspended_tenant_leaves_in_the_middle_of_a_transaction_and_returns() {
    let (books, proxy, _) = acme();
    let mut client = found(&proxy.connect("acme"));
    client.exec("begin");
    set_status(&books, "acme", "suspended");
    let error = client.ends_with("57P01");
    assert!(
        error.text().contains("The tenant is suspended."),
        "{error:?}"
    );
    assert_eq!(proxy.connect("acme").refused().code(), "28000");
    set_status(&books, "acme", "active");
    let mut client = found(&proxy.connect("acme"));
    set_status(&books, "acme", "terminated");
    let error = client.ends_with("57P01");
    assert!(error.text().contains("removed or moved"), "{error:?}");
    assert_eq!(proxy.connect("acme").refused().code(), "28P01");
}

#[test]
fn a_change_during_a_look_up_wins() {
    let (books, proxy, _) = acme();
    let mut client = found(&proxy.connect("acme"));
    let mut lock = books.admin();
    lock.exec("begin; lock table pgusher.api_key");
    let mut admin = books.admin();
    // Told of a change, the proxy reads the tenant's row, and waits for its keys.
    admin.exec("update pgusher.tenant set plan = 'other' where id = 'acme'");
    let waits = "select 1 from pg_stat_activity where application_name = 'pgusher' \
                 and wait_event_type = 'Lock' and datname = current_database()";
    eventually("the look-up waits", || !admin.values(waits).is_empty());
    set_status(&books, "acme", "suspended");
    lock.exec("commit");
    client.ends_with("57P01");
    assert_eq!(proxy.connect("acme").refused().code(), "28000");
}

#[test]
fn a_lost_connection_misses_nothing() {
    let (books, proxy, _) = acme();
    let mut client = found(&proxy.connect("acme"));
    // The change is told when its transaction commits: then nobody listens.
    books.admin().exec(
        "begin; update pgusher.tenant set status = 'suspended' where id = 'acme';
         select pg_terminate_backend(pid, 5000) from pg_stat_activity
         where application_name = 'pgusher' and datname = current_database() and query ~* '^(listen|select last_value)';
         commit",
    );
    client.ends_with("57P01");
    assert_eq!(proxy.connect("acme").refused().code(), "28000");
    assert!(
        proxy.log().contains("connection for changes is lost"),
        "{}",
        proxy.log()
    );
}

#[test]
fn a_change_that_is_not_told_of_is_found() {
    let (books, proxy, _) = acme();
    let mut client = found(&proxy.connect("acme")).patience(3 * DEADLINE);
    books.admin().exec(
        "create or replace function pgusher.tell_tenant() returns trigger language plpgsql as
         'begin new.generation := nextval(''pgusher.generation''); return new; end'",
    );
    set_status(&books, "acme", "suspended");
    client.ends_with("57P01");
    assert_eq!(proxy.connect("acme").refused().code(), "28000");
}

#[test]
fn the_file_comes_before_the_registry_and_is_still_reloaded() {
    let postgres = Postgres::shared();
    let books = Books::new(postgres);
    let place = postgres.place();
    let tenant = |id: &str| Tenant::new(id, &place);
    let mut proxy = Proxy::of([tenant("acme")])
        .registry(&books.url(), &books.master_key)
        .start();
    books.add_cluster(postgres.endpoint());
    let (others, acmes) = (postgres.place(), postgres.place());
    books.add("acme", &acmes);
    books.add("other", &others);
    let mut other = found(&proxy.connect("acme").user("other").password(KEY));
    assert_eq!(other.value("select current_user"), others.role());
    let mut client = proxy.connect("acme").login();
    assert_eq!(client.value("select current_user"), place.role());
    eventually("it is warned of", || {
        proxy.log().contains("the file's is used")
    });
    proxy.reload(|file| file.tenants = vec![tenant("newer")]);
    let mut newer = found(&proxy.connect("newer"));
    assert_eq!(newer.value("select current_user"), place.role());
    // Out of the file, it is the registry's, who is elsewhere or has another key.
    client.ends_with("57P01");
    let mut client = found(&Connect::to(proxy.address()).user("acme").password(KEY));
    assert_eq!(client.value("select current_user"), acmes.role());
    other.is_in_step();
    proxy.reload(|file| file.tenants.clear());
    newer.ends_with("57P01");
    other.is_in_step();
}

//! What an operator is told when something is not as it should be: master keys, the registry, keys
//! that are not valid now, a template with an error.

use crate::harness::{
    Connect, Postgres, Proxy,
    books::Books,
    estate::{Estate, ground},
    eventually, eventually_some,
    proxy_file::KEY,
};
use std::fs;

/// A desk whose registry has a tenant, `acme`.
fn desk() -> Estate {
    let estate = Estate::new();
    estate.create("acme", "row");
    estate
}

fn set_master_key(estate: &Estate, text: &str) {
    fs::write(estate.office.path().join("master.key"), text).unwrap();
}

#[test]
fn with_another_master_key_nothing_is_made_and_it_is_said() {
    let estate = desk();
    let path = estate.office.path().join("master.key");
    let right = fs::read_to_string(&path).unwrap();
    let made = estate.office.run(&["secrets", "key", "--number", "1"]);
    set_master_key(&estate, &made.succeeded().out);
    let url = ground().endpoint().url();
    let add = ["cluster", "add", "second", "--primary", &url];
    for command in [
        &["tenant", "create", "other", "--tier", "row"][..],
        &[&add[..], &["--admin-role", "admin"]].concat(),
    ] {
        let told = estate.fails(command);
        assert!(told.contains("are not the registry's"), "{told}");
        assert!(told.contains("does not open with master key 1"), "{told}");
    }
    let told = estate.fails(&["tenant", "verify", "acme"]);
    assert!(
        told.contains("tenant acme's password can't be opened"),
        "{told}"
    );
    // One with another number is not the first of a line that goes on.
    let made = estate.office.run(&["secrets", "key", "--number", "2"]);
    set_master_key(&estate, &made.succeeded().out);
    let told = estate.fails(&["tenant", "create", "other", "--tier", "row"]);
    assert!(
        told.contains("sealed under master key 1, which is not in the keyring"),
        "{told}"
    );
    let tenants = "select string_agg(id, ' ') from pgusher.tenant";
    assert_eq!(estate.registry().value(tenants), "acme");
    set_master_key(&estate, &right);
    estate.create("other", "row");
}

#[test]
fn a_master_key_that_is_none_is_said_with_the_file_and_the_way_out() {
    let estate = desk();
    for (text, says) in [
        ("1 garbage", "line 1 is not of the form"),
        ("", "there is no master key in it"),
    ] {
        set_master_key(&estate, text);
        for command in [&["serve"][..], &["tenant", "list"]] {
            let told = estate.fails(command);
            assert!(told.contains(says), "{told}");
            assert!(told.contains("pgusher secrets key"), "{told}");
            assert!(!told.contains("garbage"), "{told}");
        }
    }
    fs::remove_file(estate.office.path().join("master.key")).unwrap();
    for command in [&["serve"][..], &["tenant", "list"]] {
        let told = estate.fails(command);
        assert!(
            told.contains("master.key") && told.contains("No such file"),
            "{told}"
        );
    }
}

#[test]
fn a_registry_that_is_not_there_is_said_with_its_address_and_without_its_password() {
    let estate = desk();
    let path = estate.office.path().join("proxy.toml");
    let right = fs::read_to_string(&path).unwrap();
    let port = Postgres::shared().endpoint().port();
    for (url, says) in [
        (
            "postgres://admin:hunter2@127.0.0.1:1/x",
            "the registry at 127.0.0.1:1 does not answer (",
        ),
        (
            &format!("postgres://admin:hunter2@127.0.0.1:{port}/no_such"),
            "database \"no_such\" does not exist",
        ),
        ("mysql://admin:hunter2@127.0.0.1/x", "postgres://"),
    ] {
        let url = right.replace(&estate.office.url(), url);
        fs::write(&path, url).unwrap();
        let told = estate.fails(&["tenant", "list"]);
        assert!(told.contains(says), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn a_start_without_registry_and_snapshot_tells_clients_to_try_again_and_serves_later() {
    let mut postgres = Postgres::start();
    let books = Books::new(&postgres);
    let mut proxy = books.proxy().start();
    books.add_cluster(Postgres::shared().endpoint());
    let place = Postgres::shared().place();
    books.add("acme", &place);
    proxy.signal("TERM");
    assert!(proxy.end().success());
    fs::remove_file(proxy.folder().join("registry.snapshot")).ok();
    postgres.kill();
    proxy.start_again();
    let connect = Connect::to(proxy.address()).user("acme").password(KEY);
    assert_eq!(connect.refused().code(), "57P03");
    let log = proxy.log();
    assert!(log.contains("the registry does not answer"), "{log}");
    postgres.run();
    let mut client = eventually_some("the tenant logs in", || connect.try_login().ok());
    assert_eq!(client.value("select current_user"), place.role());
}

fn books() -> (Books, Proxy) {
    let books = Books::new(Postgres::shared());
    // A test asks more often than a client may guess.
    let proxy = books.proxy().set("auth_failures_per_minute", 100_000);
    let proxy = proxy.start();
    books.add_cluster(Postgres::shared().endpoint());
    books.add("acme", &Postgres::shared().place());
    (books, proxy)
}

#[test]
fn a_key_opens_from_its_time_on_and_until_its_time_without_a_change_of_the_registry() {
    let (books, proxy) = books();
    let connect = Connect::to(proxy.address()).user("acme");
    let with = |key: &str| connect.clone().password(key);
    drop(eventually_some("the tenant logs in", || {
        with(KEY).try_login().ok()
    }));
    for key in ["early", "late", "far"] {
        books.add_key("acme", key, key);
    }
    // As by a clock that is ahead of the proxy's.
    books.admin().exec(
        "update pgusher.api_key set not_before = now() + interval '8 s' where id = 'early'; \
         update pgusher.api_key set not_before = now() + interval '1 h' where id = 'far'; \
         update pgusher.api_key set expires_at = now() + interval '8 s' where id = 'late'",
    );
    drop(eventually_some("its time comes", || {
        with("early").try_login().ok()
    }));
    for (key, why) in [
        ("far", "the key is not valid yet"),
        ("late", "the key has expired"),
    ] {
        eventually("it is refused, and the log says why", || {
            with(key).try_login().is_err() && proxy.log().contains(why)
        });
        let refused = with(key).refused();
        assert_eq!(refused.code(), "28P01", "{key}");
        // Who has the key is not told that it is one.
        assert!(refused.message().contains("authentication failed"));
    }
    with("early").login().is_in_step();
}

#[test]
fn a_template_with_an_error_is_named_with_its_line_and_nothing_is_left() {
    let estate = Estate::new();
    let folder = estate.office.path();
    for tier in ["database", "schema", "row"] {
        let tier = folder.join("templates").join(tier);
        fs::create_dir_all(&tier).unwrap();
        fs::write(
            tier.join("0001_a.sql"),
            "CREATE TABLE a (id int PRIMARY KEY);\n",
        )
        .unwrap();
        fs::write(
            tier.join("0002_b.sql"),
            "CREATE TABLE b (id int PRIMARY KEY);\n\nSELEC 1;\n",
        )
        .unwrap();
    }
    let path = folder.join("proxy.toml");
    let toml = fs::read_to_string(&path).unwrap();
    fs::write(&path, toml + "[templates]\ndirectory = \"templates\"\n").unwrap();
    for tier in ["database", "schema"] {
        let told = estate.fails(&["tenant", "create", "acme", "--tier", tier]);
        for part in [
            "0002_b.sql:3:",
            "syntax error at or near \"SELEC\"",
            "everything was taken back",
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
        assert_eq!(estate.field("acme", "id"), "");
        assert_eq!(estate.events("acme").last().unwrap(), "ProvisioningFailed");
    }
    let second = folder.join("templates/schema/0002_b.sql");
    fs::write(second, "CREATE TABLE b (id int PRIMARY KEY);\n").unwrap();
    estate.create("acme", "schema");
    assert_eq!(estate.field("acme", "template_version"), "2");
}

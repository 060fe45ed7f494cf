//! A registry that does not answer: who was known is served, who was not is told to try again.

use crate::harness::{
    Client, Connect, Place, Postgres, Proxy, books::Books, eventually, eventually_some,
    proxy_file::KEY,
};
use std::{fs, process::Command, time::Instant};

/// A PostgreSQL for the registry alone, `acme` in it, whose data is in the shared one.
fn acme() -> (Postgres, Books, Proxy, Place) {
    let postgres = Postgres::start();
    let books = Books::new(&postgres);
    let proxy = books.proxy().start();
    books.add_cluster(Postgres::shared().endpoint());
    let place = Postgres::shared().place();
    books.add("acme", &place);
    books.are_heard_by(&proxy);
    (postgres, books, proxy, place)
}

fn connect(proxy: &Proxy, tenant: &str) -> Connect {
    Connect::to(proxy.address()).user(tenant).password(KEY)
}

fn found(connect: &Connect) -> Client {
    eventually_some("the tenant logs in", || connect.try_login().ok())
}

fn snapshot_of(proxy: &Proxy, after: Option<&Vec<u8>>) -> Vec<u8> {
    let path = proxy.folder().join("registry.snapshot");
    eventually_some("the snapshot is written", || {
        // One more tenant makes it longer; it may also have been written once more as it was.
        let is_longer = |now: &Vec<u8>| after.is_none_or(|after| now.len() > after.len());
        fs::read(&path).ok().filter(is_longer)
    })
}

fn end(proxy: &mut Proxy) {
    proxy.signal("TERM");
    assert!(proxy.end().success());
}

/// A PostgreSQL whose processes are all stopped, until this is dropped.
struct Hanging(Vec<String>);

impl Hanging {
    fn new(postgres: &Postgres) -> Self {
        let folder = postgres.admin().value("show data_directory");
        let pid = fs::read_to_string(format!("{folder}/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap().to_owned();
        // First the one that makes others.
        let mut hanging = Self(vec![pid.clone()]);
        hanging.signal("STOP");
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        hanging
            .0
            .extend(children.split_whitespace().map(str::to_owned));
        hanging.signal("STOP");
        hanging
    }

    /// One that has just ended needs no signal.
    fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        kill.arg(format!("-{name}")).args(&self.0).output().unwrap();
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.signal("CONT");
    }
}

#[test]
fn known_tenants_log_in_while_the_registry_is_down_and_unknown_ones_are_told_to_try_again() {
    let (mut postgres, books, proxy, place) = acme();
    let mut client = found(&connect(&proxy, "acme"));
    assert_eq!(connect(&proxy, "nobody").refused().code(), "28P01");
    postgres.kill();
    eventually("it is noticed", || {
        connect(&proxy, "nobody").refused().code() == "57P03"
    });
    for _ in 0..5 {
        let mut known = connect(&proxy, "acme").login();
        assert_eq!(known.value("select current_user"), place.role());
        assert_eq!(connect(&proxy, "unknown").refused().code(), "57P03");
    }
    client.is_in_step();
    let told = proxy.log().matches("the registry does not answer").count();
    assert_eq!(told, 1, "{}", proxy.log());
    postgres.run();
    eventually("it answers again", || {
        connect(&proxy, "nobody").refused().code() == "28P01"
    });
    eventually("it is told", || {
        proxy.log().contains("the registry answers again")
    });
    books.add("nobody", &Postgres::shared().place());
    found(&connect(&proxy, "nobody"));
    client.is_in_step();
}

#[test]
fn what_is_older_than_allowed_is_not_served() {
    let mut postgres = Postgres::start();
    let books = Books::new(&postgres);
    let proxy = books.proxy().set_registry("stale_max", "1s").start();
    books.add_cluster(Postgres::shared().endpoint());
    books.add("acme", &Postgres::shared().place());
    found(&connect(&proxy, "acme"));
    postgres.kill();
    eventually("it is no longer served", || {
        connect(&proxy, "acme")
            .try_login()
            .is_err_and(|frames| crate::harness::frames::code(&frames) == "57P03")
    });
}

#[test]
fn a_start_without_the_registry_serves_from_the_snapshot() {
    let (mut postgres, books, mut proxy, place) = acme();
    found(&connect(&proxy, "acme"));
    let first = snapshot_of(&proxy, None);
    books.add("second", &Postgres::shared().place());
    found(&connect(&proxy, "second"));
    let second = snapshot_of(&proxy, Some(&first));
    for word in [&b"acme"[..], b"place_"] {
        assert!(!second.windows(word.len()).any(|window| window == word));
    }
    end(&mut proxy);
    postgres.kill();
    proxy.start_again();
    let mut client = connect(&proxy, "acme").login();
    assert_eq!(client.value("select current_user"), place.role());
    connect(&proxy, "second").login().is_in_step();
    assert_eq!(connect(&proxy, "nobody").refused().code(), "57P03");
    assert!(
        proxy.log().contains("serving from the snapshot"),
        "{}",
        proxy.log()
    );
    postgres.run();
    books.add("third", &Postgres::shared().place());
    found(&connect(&proxy, "third"));
    client.is_in_step();
}

#[test]
fn another_master_key_is_said_and_nobody_is_let_in() {
    let (mut postgres, books, mut proxy, _) = acme();
    found(&connect(&proxy, "acme"));
    snapshot_of(&proxy, None);
    end(&mut proxy);
    let other = Books::new(&postgres).master_key;
    let path = proxy.folder().join("master.key");
    fs::write(&path, &other).unwrap();
    proxy.start_again();
    eventually("it is said before anybody asks", || {
        let log = proxy.log();
        log.contains("no tenant of the registry can be served")
            && log.contains("are not the registry's")
    });
    eventually("it is said", || {
        connect(&proxy, "acme").refused().code() == "57P03"
            && proxy.log().contains("does not open with master key 1")
    });
    end(&mut proxy);
    postgres.kill();
    proxy.start_again();
    assert_eq!(connect(&proxy, "acme").refused().code(), "57P03");
    let log = proxy.log();
    assert!(log.contains("the snapshot can't be used"), "{log}");
    assert!(log.contains("does not open with master key 1"), "{log}");
    // The right key, read again.
    postgres.run();
    fs::write(&path, &books.master_key).unwrap();
    proxy.signal("HUP");
    found(&connect(&proxy, "acme"));
}

#[test]
fn a_registry_that_hangs_holds_up_no_known_tenant() {
    let (postgres, books, proxy, place) = acme();
    found(&connect(&proxy, "acme"));
    books.add("cold", &Postgres::shared().place());
    eventually("everybody is known", || {
        connect(&proxy, "cold").try_login().is_ok()
    });
    let hanging = Hanging::new(&postgres);
    for tenant in ["acme", "cold"] {
        connect(&proxy, tenant).login().is_in_step();
    }
    eventually("the unknown are told to try again", || {
        connect(&proxy, "stranger").refused().code() == "57P03"
    });
    let mut client = connect(&proxy, "acme").login();
    assert_eq!(client.value("select current_user"), place.role());
    drop(hanging);
    eventually("it is asked again", || {
        connect(&proxy, "stranger").refused().code() == "28P01"
    });
}

#[test]
fn ten_thousand_tenants_start_at_once() {
    let (_postgres, books, mut proxy, _) = acme();
    books.add_many(10_000);
    end(&mut proxy);
    let start = Instant::now();
    proxy.start_again();
    let serves = start.elapsed();
    let first = Instant::now();
    connect(&proxy, "acme").login().is_in_step();
    let cold = first.elapsed();
    let again = Instant::now();
    connect(&proxy, "acme").login().is_in_step();
    let warm = again.elapsed();
    let before = proxy.resident_bytes();
    let last = connect(&proxy, "many9999");
    // It has no place: it is let in as far as its server.
    eventually("the last one is found", || {
        let refused = last.refused();
        !["28P01", "57P03"].contains(&refused.code()) || refused.message().contains("many9999")
    });
    let after = proxy.resident_bytes();
    eprintln!(
        "10,000 tenants: serves after {serves:?}, first login {cold:?}, second {warm:?}, \
         {before} bytes at first, {after} then"
    );
}

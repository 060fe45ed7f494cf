//! LISTEN and NOTIFY where not everybody speaks UTF-8: what a client hears is in its own encoding.

use crate::harness::{Client, Frame, Place, Postgres, Proxy, Tenant, frames::firsts, place::Login};

const LATIN1: &str = "gr\u{f6}\u{df}e";

fn pooled() -> Proxy {
    let place = Postgres::shared().database();
    Proxy::of([Tenant::new("acme", &place).pool_size(2)]).start()
}

/// Channel and payload as they were sent.
fn said(frame: &Frame) -> [Vec<u8>; 2] {
    assert_eq!(frame.kind(), 'A', "{frame:?}");
    let mut strings = frame.body[4..].split(|byte| *byte == 0);
    [(); 2].map(|()| strings.next().expect("a string").to_vec())
}

fn in_latin1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).expect("a character of LATIN1"))
        .collect()
}

fn hears(client: &mut Client, expected: [&[u8]; 2]) {
    assert_eq!(said(&client.next()), expected.map(<[u8]>::to_vec));
}

/// Notifies from outside the proxy, in UTF-8.
fn notify(proxy: &Proxy, channel: &str, payload: &str) {
    let direct = proxy.place("acme").direct();
    let mut client = direct.parameter("client_encoding", "UTF8").login();
    client.exec(&format!("notify \"{channel}\", '{payload}'"));
}

/// LISTEN for a name, in any encoding.
const LISTEN: &str = "do $$ begin execute 'listen \"gr' || chr(246) || chr(223) || 'e\"'; end $$";

#[test]
fn a_client_hears_in_its_own_encoding() {
    let proxy = pooled();
    let latin1 = proxy.connect("acme").parameter("client_encoding", "LATIN1");
    let mut latin1 = latin1.login();
    let mut utf8 = proxy.connect("acme").login();
    for client in [&mut latin1, &mut utf8] {
        client.exec(LISTEN);
    }
    for payload in [LATIN1, "ascii"] {
        notify(&proxy, LATIN1, payload);
        hears(&mut latin1, [&in_latin1(LATIN1), &in_latin1(payload)]);
        hears(&mut utf8, [LATIN1.as_bytes(), payload.as_bytes()]);
    }
    assert_eq!(latin1.value("show pgusher.pin"), "listen");
    assert_eq!(utf8.value("show pgusher.pin"), "");
    latin1.exec("unlisten *");
    assert_eq!(latin1.value("show pgusher.pin"), "");
    notify(&proxy, LATIN1, "not heard");
    latin1.is_in_step();
}

#[test]
fn a_client_that_changes_its_encoding_loses_and_doubles_nothing() {
    let proxy = pooled();
    let mut client = proxy.connect("acme").login();
    client.exec("listen plain");
    client.exec(LISTEN);
    for round in 0..3 {
        notify(&proxy, LATIN1, LATIN1);
        hears(&mut client, [LATIN1.as_bytes(), LATIN1.as_bytes()]);
        client.exec("set client_encoding to 'latin1'");
        notify(&proxy, LATIN1, LATIN1);
        hears(&mut client, [&in_latin1(LATIN1), &in_latin1(LATIN1)]);
        client.exec("begin; listen more; commit");
        for channel in ["plain", "more"] {
            let frames = client.exec(&format!("notify {channel}, '{round}'"));
            let [heard] = frames
                .iter()
                .filter(|frame| frame.kind() == 'A')
                .collect::<Vec<_>>()[..]
            else {
                panic!("not heard once: {frames:?}");
            };
            assert_eq!(
                said(heard),
                [channel.as_bytes().to_vec(), round.to_string().into()]
            );
        }
        assert_eq!(client.value("show pgusher.pin"), "listen");
        client.exec("set client_encoding to 'utf8'");
        assert_eq!(client.value("show pgusher.pin"), "");
        client.is_in_step();
    }
}

#[test]
fn an_encoding_that_changes_inside_a_transaction_that_listens_garbles_no_name() {
    let proxy = pooled();
    let mut client = proxy.connect("acme").login();
    client.exec(LISTEN);
    client.exec("begin");
    client.exec("set client_encoding to 'latin1'");
    client.exec("listen more");
    client.exec("commit");
    notify(&proxy, LATIN1, LATIN1);
    hears(&mut client, [&in_latin1(LATIN1), &in_latin1(LATIN1)]);
    notify(&proxy, "more", "here");
    hears(&mut client, [b"more", b"here"]);
    client.is_in_step();
}

#[test]
fn a_tenant_whose_servers_are_not_kept_is_refused_what_it_could_not_read() {
    let place = Postgres::shared().database();
    let proxy = Proxy::of([Tenant::new("acme", &place).set("pin", "refuse")]).start();
    let latin1 = proxy.connect("acme").parameter("client_encoding", "LATIN1");
    let mut latin1 = latin1.login();
    latin1.exec("listen news");
    let fields = latin1.ends_with("0A000");
    assert_eq!(fields.severity(), "FATAL");
    let mut utf8 = proxy.connect("acme").login();
    utf8.exec("listen news");
    notify(&proxy, "news", "heard");
    hears(&mut utf8, [b"news", b"heard"]);
}

#[test]
fn a_database_that_does_not_know_its_encoding_tells_bytes_as_they_came() {
    let place = Place::database(Postgres::shared().endpoint(), Login::Scram);
    let database = place.database_name();
    let mut admin = Postgres::shared().admin();
    admin.exec(&format!("drop database {database}"));
    admin.exec(&format!(
        "create database {database} owner {} encoding 'SQL_ASCII' template template0 locale 'C'",
        place.role()
    ));
    let proxy = Proxy::of([Tenant::new("acme", &place).pool_size(1)]).start();
    let mut client = proxy.connect("acme").login();
    client.exec(&format!("listen \"{LATIN1}\""));
    client.exec(&format!("listen \"{LATIN1}\"; listen more"));
    assert_eq!(client.value("show pgusher.pin"), "");
    let mut sender = proxy.connect("acme").login();
    sender.exec(&format!("notify \"{LATIN1}\", '{LATIN1}'"));
    hears(&mut client, [LATIN1.as_bytes(), LATIN1.as_bytes()]);
    let bytes = sender.exec("select pg_notify('more', convert_from('\\xe9'::bytea, 'SQL_ASCII'))");
    assert_eq!(firsts(&bytes), [""]);
    hears(&mut client, [b"more", b"\xe9"]);
    client.is_in_step();
}

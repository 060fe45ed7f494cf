//! LISTEN, NOTIFY and UNLISTEN in transaction mode: as on a connection of one's own.

use crate::harness::{
    Client, Frame, Postgres, Proxy, Request, Tenant,
    frames::{error, firsts},
    tags,
};

/// A proxy for one tenant with a database of its own: nobody else's notifications come in between.
pub fn pooled(servers: u32) -> Proxy {
    let place = Postgres::shared().database();
    Proxy::of([Tenant::new("acme", &place).pool_size(servers)]).start()
}

/// Channel and payload.
pub fn said(frame: &Frame) -> (String, String) {
    assert_eq!(frame.kind(), 'A', "{frame:?}");
    let strings = Frame {
        tag: b'A',
        body: frame.body[4..].to_vec(),
    };
    let [channel, payload] = strings.strings().try_into().expect("a channel, a payload");
    (channel, payload)
}

/// The payloads among the messages.
pub fn payloads(frames: &[Frame]) -> Vec<String> {
    let notifications = frames.iter().filter(|frame| frame.kind() == 'A');
    notifications.map(|frame| said(frame).1).collect()
}

/// The next thing that comes is this payload, unasked.
pub fn hears(client: &mut Client, payload: &str) {
    assert_eq!(said(&client.next()).1, payload);
}

/// Notifies from outside the proxy.
pub fn notify(proxy: &Proxy, channel: &str, payloads: &[&str]) {
    let mut client = proxy.place("acme").direct().login();
    for payload in payloads {
        client.exec(&format!("notify {channel}, '{payload}'"));
    }
}

#[test]
fn every_client_that_listens_hears_through_one_server() {
    let proxy = pooled(1);
    let mut listeners: Vec<_> = (0..20).map(|_| proxy.connect("acme").login()).collect();
    for client in &mut listeners {
        client.exec("listen news");
    }
    let mut notifier = proxy.connect("acme").login();
    for number in 0..10 {
        notifier.exec(&format!("notify news, '{number}'"));
    }
    for client in &mut listeners {
        for number in 0..10 {
            hears(client, &number.to_string());
        }
        client.is_in_step();
    }
}

#[test]
fn clients_that_listen_hold_no_server() {
    let proxy = pooled(1);
    let mut listeners: Vec<_> = (0..5).map(|_| proxy.connect("acme").login()).collect();
    for client in &mut listeners {
        client.exec("listen news");
    }
    let mut other = proxy.connect("acme").login();
    other.exec("begin; create table t (i int)");
    other.exec("insert into t values (1); commit");
    for client in &mut listeners {
        assert_eq!(client.value("select i from t"), "1");
    }
    let mut admin = proxy.place("acme").admin();
    let pids = proxy.place("acme").server_pids(&mut admin);
    assert!(pids.len() <= 2, "one server and one listener: {pids:?}");
}

#[test]
fn a_listener_that_works_hears_between_its_transactions() {
    let proxy = pooled(1);
    let mut client = proxy.connect("acme").login();
    client.exec("listen news");
    let mut heard = Vec::new();
    for number in 0..20 {
        notify(&proxy, "news", &[&number.to_string()]);
        heard.extend(payloads(&client.exec("begin; select 1; commit")));
        client.is_in_step_but_for(&mut heard);
    }
    while heard.len() < 20 {
        heard.push(said(&client.next()).1);
    }
    let expected: Vec<_> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(heard, expected);
}

trait InStep {
    fn is_in_step_but_for(&mut self, heard: &mut Vec<String>);
}

impl InStep for Client {
    /// The next answer is the next question's; what is heard before it is noted.
    fn is_in_step_but_for(&mut self, heard: &mut Vec<String>) {
        let frames = self.exec("select 'mark'");
        assert_eq!(firsts(&frames), ["mark"]);
        heard.extend(payloads(&frames));
    }
}

#[test]
fn listen_takes_effect_at_the_commit() {
    let proxy = pooled(1);
    let mut client = proxy.connect("acme").login();
    client.exec("begin");
    client.exec("listen news");
    notify(&proxy, "news", &["before the commit"]);
    client.exec("commit");
    notify(&proxy, "news", &["after the commit"]);
    hears(&mut client, "after the commit");
    client.is_in_step();
}

#[test]
fn listen_and_unlisten_are_dropped_by_a_rollback() {
    let proxy = pooled(1);
    let mut client = proxy.connect("acme").login();
    client.exec("listen kept");
    client.exec("begin; listen dropped; unlisten kept; rollback");
    assert_eq!(client.fails("listen dropped; select 1/0").code(), "22012");
    client.exec("begin; listen dropped");
    assert_eq!(client.fails("select 1/0").code(), "22012");
    client.exec("commit");
    notify(&proxy, "dropped", &["not heard"]);
    notify(&proxy, "kept", &["heard"]);
    hears(&mut client, "heard");
    client.is_in_step();
}

#[test]
fn a_rollback_to_a_savepoint_drops_what_was_listened_to_since() {
    let proxy = pooled(1);
    let mut client = proxy.connect("acme").login();
    client.exec("begin; listen kept; savepoint s; listen dropped; rollback to s; commit");
    client.exec("begin; savepoint s; listen released; release s; commit");
    notify(&proxy, "dropped", &["not heard"]);
    notify(&proxy, "kept", &["kept"]);
    notify(&proxy, "released", &["released"]);
    hears(&mut client, "kept");
    hears(&mut client, "released");
    client.is_in_step();
}

#[test]
fn unlisten_ends_one_channel_and_with_a_star_all() {
    let proxy = pooled(1);
    let mut client = proxy.connect("acme").login();
    client.exec("listen one; listen two; listen three");
    client.exec("unlisten one");
    notify(&proxy, "one", &["not heard"]);
    notify(&proxy, "two", &["two"]);
    hears(&mut client, "two");
    for all in ["unlisten *", "discard all"] {
        client.exec(all);
        for channel in ["one", "two", "three"] {
            notify(&proxy, channel, &["not heard"]);
        }
        client.exec("listen two");
        notify(&proxy, "two", &["heard again"]);
        hears(&mut client, "heard again");
        client.is_in_step();
    }
}

#[test]
fn a_channel_listened_to_twice_is_heard_once_and_ended_once() {
    let proxy = pooled(1);
    let mut client = proxy.connect("acme").login();
    client.exec("listen news; listen news");
    client.exec("listen news");
    let frames = client.exec("begin; listen news; notify news, 'mine'; commit");
    assert_eq!(tags(&frames), "CCCCAZ", "{frames:?}");
    notify(&proxy, "news", &["once"]);
    hears(&mut client, "once");
    client.is_in_step();
    client.exec("unlisten news; listen last");
    notify(&proxy, "news", &["not heard"]);
    notify(&proxy, "last", &["last"]);
    hears(&mut client, "last");
}

#[test]
fn unlisten_and_listen_in_one_transaction_lose_and_double_nothing() {
    let proxy = pooled(1);
    let mut client = proxy.connect("acme").login();
    client.exec("listen news");
    for number in 0..10 {
        let number = number.to_string();
        client.exec("begin; unlisten *; listen news; commit");
        notify(&proxy, "news", &[&number]);
        hears(&mut client, &number);
    }
    client.is_in_step();
}

#[test]
fn notifications_keep_their_order_and_doubles_of_a_transaction_are_one() {
    let proxy = pooled(1);
    let mut client = proxy.connect("acme").login();
    client.exec("listen one; listen two");
    let mut notifier = proxy.connect("acme").login();
    notifier.exec(
        "begin; notify one, 'a'; notify two, 'a'; notify one, 'b'; notify one, 'a'; \
         notify two, 'a'; notify one, 'c'; commit",
    );
    notifier.exec("notify one, 'a'");
    notifier.exec("notify one, 'a'");
    notifier.exec("begin; notify one, 'rolled back'; rollback");
    notifier.exec("notify one; select pg_notify('two', 'end')");
    let heard: Vec<_> = client.take(8).iter().map(said).collect();
    let expected = [
        ("one", "a"),
        ("two", "a"),
        ("one", "b"),
        ("one", "c"),
        ("one", "a"),
        ("one", "a"),
        ("one", ""),
        ("two", "end"),
    ];
    let expected = expected.map(|(channel, payload)| (channel.to_owned(), payload.to_owned()));
    assert_eq!(heard, expected);
    client.is_in_step();
}

#[test]
fn ones_own_notification_comes_before_ones_own_readiness() {
    let proxy = pooled(1);
    let mut client = proxy.connect("acme").login();
    client.exec("listen news");
    for number in 0..10 {
        let payload = number.to_string();
        let frames = client.exec(&format!("notify news, '{payload}'"));
        assert_eq!(tags(&frames), "CAZ", "{frames:?}");
        let frames = client.exec(&format!("begin; notify news, '{payload}'; commit"));
        assert_eq!(tags(&frames), "CCCAZ", "{frames:?}");
        let request = Request::new().run("select pg_notify('news', $1)", &[&payload]);
        let frames = client.ask(&request.sync());
        assert_eq!(tags(&frames), "12DCAZ", "{frames:?}");
        assert_eq!(payloads(&frames), [payload]);
    }
    let frames = client.exec("listen more; notify more, 'at once'");
    assert_eq!(tags(&frames), "CCAZ", "{frames:?}");
    client.is_in_step();
}

#[test]
fn a_function_a_block_and_the_extended_protocol_listen_as_well() {
    let proxy = pooled(1);
    let mut client = proxy.connect("acme").login();
    client.exec(
        "create function subscribe(name text) returns void language plpgsql as \
         $$ begin execute format('listen %I', name); end $$",
    );
    client.exec("select subscribe('by_function')");
    client.exec("do $$ begin execute 'listen by_block'; end $$");
    let frames = client.ask(&Request::new().run("listen by_extended", &[]).sync());
    assert_eq!(error(&frames), None);
    for channel in ["by_function", "by_block", "by_extended"] {
        notify(&proxy, channel, &[channel]);
        hears(&mut client, channel);
    }
    client.exec("do $$ begin execute 'unlisten by_block'; end $$");
    notify(&proxy, "by_block", &["not heard"]);
    notify(&proxy, "by_function", &["heard"]);
    hears(&mut client, "heard");
    client.is_in_step();
}

#[test]
fn a_name_of_a_channel_is_what_postgresql_makes_of_it() {
    let proxy = pooled(1);
    let mut client = proxy.connect("acme").login();
    let long = "x".repeat(70);
    client.exec(&format!("listen MiXed; listen \"MiXed\"; listen {long}"));
    client.exec("listen \"größe \"\" 😀\"; listen pgusher");
    for (notify, channel) in [
        ("mixed", "mixed"),
        ("\"MiXed\"", "MiXed"),
        (&long[..63], &long[..63]),
        ("\"größe \"\" 😀\"", "größe \" 😀"),
        ("pgusher", "pgusher"),
    ] {
        let mut notifier = proxy.place("acme").direct().login();
        notifier.exec(&format!("notify {notify}, 'here'"));
        let expected = (channel.to_owned(), "here".to_owned());
        assert_eq!(said(&client.next()), expected);
    }
    client.is_in_step();
}

#[test]
fn nothing_is_heard_inside_a_transaction() {
    let proxy = pooled(1);
    let mut client = proxy.connect("acme").login();
    let mut witness = proxy.connect("acme").login();
    client.exec("listen news");
    witness.exec("listen news");
    client.exec("begin");
    for number in 0..5 {
        let payload = number.to_string();
        notify(&proxy, "news", &[&payload]);
        hears(&mut witness, &payload);
        let frames = client.exec("select 1");
        assert_eq!(tags(&frames), "TDCZ", "{frames:?}");
    }
    let mut heard = payloads(&client.exec("commit"));
    while heard.len() < 5 {
        heard.push(said(&client.next()).1);
    }
    assert_eq!(heard, ["0", "1", "2", "3", "4"]);
    client.is_in_step();
}

#[test]
fn who_leaves_takes_the_channels_along() {
    let proxy = pooled(1);
    for _ in 0..3 {
        let mut client = proxy.connect("acme").login();
        client.exec("listen news");
        client.send(&Request::new().terminate());
        client.rest();
        let mut next = proxy.connect("acme").login();
        notify(&proxy, "news", &["for nobody"]);
        for _ in 0..3 {
            let frames = next.exec("select 1");
            assert_eq!(tags(&frames), "TDCZ", "{frames:?}");
        }
    }
}

#[test]
fn tenants_of_one_database_never_hear_each_other() {
    let places = [(); 2].map(|()| Postgres::shared().schema());
    let tenants = ["acme", "zeta"].map(|id| (id, &places[usize::from(id != "acme")]));
    let tenants = tenants.map(|(id, place)| Tenant::new(id, place).pool_size(2));
    let proxy = Proxy::of(tenants).start();
    let mut listeners = ["acme", "zeta"].map(|id| (id, proxy.connect(id).login()));
    let mut notifiers = ["acme", "zeta"].map(|id| (id, proxy.connect(id).login()));
    for (_, client) in &mut listeners {
        client.exec("listen common");
    }
    for number in 0..10 {
        for (id, client) in &mut notifiers {
            client.exec(&format!("notify common, '{id} {number}'"));
        }
    }
    for (id, client) in &mut listeners {
        for number in 0..10 {
            hears(client, &format!("{id} {number}"));
        }
        client.is_in_step();
    }
}

/// Direct, a notification of a session that has ended is heard like any other.
#[test]
fn a_notification_outlives_the_session_that_sent_it() {
    let places = [(); 2].map(|()| Postgres::shared().schema());
    let tenants = ["acme", "zeta"].map(|id| (id, &places[usize::from(id != "acme")]));
    let tenants = tenants.map(|(id, place)| Tenant::new(id, place).pool_size(2));
    let proxy = Proxy::of(tenants).start();
    let mut client = proxy.connect("acme").login();
    client.exec("listen common");
    for number in 0..10 {
        let sender = proxy
            .connect("acme")
            .options("-c pgusher.pool_mode=session");
        let mut sender = sender.login();
        let sql = format!("notify common, '{number}'");
        sender.send(&Request::new().query(&sql).terminate());
        sender.rest();
        hears(&mut client, &number.to_string());
    }
}

#[test]
fn a_commit_that_fails_leaves_the_channels_as_they_were() {
    let proxy = pooled(1);
    let mut client = proxy.connect("acme").login();
    client.exec("create table t (i int unique deferrable initially deferred)");
    client.exec("listen kept");
    client.exec("begin; listen dropped; unlisten kept; notify kept, 'not sent'");
    client.exec("insert into t values (1), (1)");
    assert_eq!(client.fails("commit").code(), "23505");
    notify(&proxy, "dropped", &["not heard"]);
    notify(&proxy, "kept", &["heard"]);
    hears(&mut client, "heard");
    client.is_in_step();
    let frames = client.exec("notify kept, 'mine'");
    assert_eq!(payloads(&frames), ["mine"]);
}

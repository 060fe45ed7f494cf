//! Whose notification it is: drivers hold its process id against that of their own connection.

use crate::harness::{Client, Frame, Postgres, Proxy, Request, Tenant, frames::error};

fn pooled(servers: u32) -> Proxy {
    let place = Postgres::shared().database();
    Proxy::of([Tenant::new("acme", &place).pool_size(servers)]).start()
}

/// Sender and payload of the notifications among the messages.
fn heard(frames: &[Frame]) -> Vec<(i32, String)> {
    let notifications = frames.iter().filter(|frame| frame.kind() == 'A');
    let read = |frame: &Frame| {
        let (pid, rest) = frame.body.split_first_chunk::<4>().expect("a process id");
        let payload = rest.split(|byte| *byte == 0).nth(1).expect("a payload");
        let payload = String::from_utf8(payload.to_vec()).unwrap();
        (i32::from_be_bytes(*pid), payload)
    };
    notifications.map(read).collect()
}

fn next(client: &mut Client) -> (i32, String) {
    heard(&[client.next()]).pop().expect("a notification")
}

#[test]
fn ones_own_notification_has_ones_own_process_id() {
    let proxy = pooled(2);
    let mut client = proxy.connect("acme").login();
    let frames = client.exec("listen news; notify news, 'by the server'");
    assert_eq!(heard(&frames), [(client.pid, "by the server".into())]);
    for number in 0..5 {
        let payload = number.to_string();
        let frames = client.exec(&format!("notify news, '{payload}'"));
        assert_eq!(heard(&frames), [(client.pid, payload.clone())]);
        client.exec("begin");
        client.exec(&format!("select pg_notify('news', '{payload}')"));
        let frames = client.exec("commit");
        assert_eq!(heard(&frames), [(client.pid, payload.clone())]);
        let request = Request::new().run("select pg_notify('news', $1)", &[&payload]);
        let frames = client.ask(&request.sync());
        assert_eq!(error(&frames), None);
        assert_eq!(heard(&frames), [(client.pid, payload)]);
    }
}

#[test]
fn a_notification_of_another_client_never_has_ones_own_process_id() {
    let proxy = pooled(1);
    let mut one = proxy.connect("acme").login();
    let mut two = proxy.connect("acme").login();
    let mut mute = proxy.connect("acme").login();
    for client in [&mut one, &mut two] {
        client.exec("listen news");
    }
    // All of them use the same server, one behind the other.
    for round in 0..20 {
        mute.exec(&format!("notify news, 'mute {round}'"));
        let mut by_one = heard(&one.exec(&format!("notify news, 'one {round}'")));
        let mut by_two = heard(&two.exec(&format!("notify news, 'two {round}'")));
        while by_one.len() < 3 {
            by_one.push(next(&mut one));
        }
        while by_two.len() < 3 {
            by_two.push(next(&mut two));
        }
        for (heard, pid, name) in [(by_one, one.pid, "one"), (by_two, two.pid, "two")] {
            let expected = ["mute", "one", "two"].map(|name| format!("{name} {round}"));
            let payloads: Vec<_> = heard.iter().map(|(_, payload)| payload.as_str()).collect();
            assert_eq!(payloads, expected);
            for (sender, payload) in &heard {
                assert_eq!(
                    *sender == pid,
                    payload.starts_with(name),
                    "{name}: {heard:?}"
                );
            }
        }
    }
}

#[test]
fn ones_own_notification_has_ones_own_process_id_in_session_mode_and_on_a_kept_server() {
    let proxy = pooled(2);
    let session = "-c pgusher.pool_mode=session";
    let mut client = proxy.connect("acme").options(session).login();
    client.exec("listen news");
    let frames = client.exec("notify news, 'mine'");
    assert_eq!(heard(&frames), [(client.pid, "mine".into())]);
    let mut kept = proxy.connect("acme").login();
    kept.exec("create temp table t (i int)");
    kept.exec("listen news");
    let frames = kept.exec("notify news, 'kept'");
    assert_eq!(heard(&frames), [(kept.pid, "kept".into())]);
    let (sender, payload) = next(&mut client);
    assert_eq!(payload, "kept");
    assert_ne!(sender, client.pid);
}

#[test]
fn what_waits_of_a_channel_is_not_heard_behind_the_transaction_that_leaves_it() {
    let proxy = pooled(2);
    let mut client = proxy.connect("acme").login();
    client.exec("listen gone; listen kept");
    let mut other = proxy.connect("acme").login();
    let mut witness = proxy.connect("acme").login();
    witness.exec("listen gone; listen kept");
    for leaves in [
        "unlisten gone",
        "unlisten *; listen kept",
        "do $$ begin execute 'unlisten gone'; end $$",
    ] {
        client.exec("begin");
        other.exec("notify gone, 'not heard'");
        other.exec("notify kept, 'heard'");
        for payload in ["not heard", "heard"] {
            assert_eq!(next(&mut witness).1, payload);
        }
        client.exec(leaves);
        let mut all = heard(&client.exec("commit"));
        while all.is_empty() {
            all.push(next(&mut client));
        }
        assert_eq!(all[0].1, "heard", "{leaves}");
        client.is_in_step();
        client.exec("listen gone");
    }
}

#[test]
fn ones_own_notification_comes_at_once_where_another_channel_is_left() {
    let proxy = pooled(1);
    let mut client = proxy.connect("acme").login();
    client.exec("listen gone; listen kept");
    let frames =
        client.exec("begin; unlisten gone; notify gone, 'not heard'; notify kept, 'heard'; commit");
    assert_eq!(heard(&frames), [(client.pid, "heard".into())]);
    client.is_in_step();
    let frames = client.exec("notify kept, 'again'");
    assert_eq!(heard(&frames), [(client.pid, "again".into())]);
}

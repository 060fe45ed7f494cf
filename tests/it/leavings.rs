//! What a session leaves by ways that its texts don't show: each was met by another client once.

use crate::harness::{Request, proxy::one_tenant};

#[test]
fn a_custom_setting_of_the_startup_is_its_clients_alone() {
    let proxy = one_tenant(|tenant| tenant.pool_size(1));
    let mut one = proxy
        .connect("acme")
        .parameter("options", "-c app.y=mine")
        .login();
    let mut two = proxy.connect("acme").login();
    one.exec("set work_mem = '1MB'");
    let asks = "select coalesce(current_setting('app.y', true), '')";
    assert_eq!(two.value(asks), "");
    assert_eq!(one.value(asks), "mine");
}

#[test]
fn a_view_that_sets_something_by_itself_sets_it_for_its_client_alone() {
    let proxy = one_tenant(|tenant| tenant.pool_size(1));
    let mut one = proxy.connect("acme").login();
    let mut two = proxy.connect("acme").login();
    two.exec("create view sets as select set_config('app.view', 'by a view', false) as mark");
    assert_eq!(one.value("select mark from sets"), "by a view");
    let asks = "select coalesce(current_setting('app.view', true), '')";
    assert_eq!(two.value(asks), "");
    assert_eq!(one.value(asks), "by a view");
}

#[test]
fn discard_all_ends_listening() {
    let proxy = one_tenant(|tenant| tenant.pool_size(1));
    let mut one = proxy.connect("acme").login();
    let mut two = proxy.connect("acme").login();
    one.exec("listen alerts");
    assert_eq!(one.value("select pg_listening_channels()"), "alerts");
    one.exec("discard all");
    two.exec("notify alerts, 'x'");
    for _ in 0..3 {
        let frames = one.ask(&Request::new().query("select 1"));
        assert!(frames.iter().all(|frame| frame.tag != b'A'), "{frames:?}");
    }
    assert_eq!(
        one.value("select count(*)::text from pg_listening_channels()"),
        "0"
    );
}

#[test]
fn notifications_reach_every_listener_in_order_and_the_own_one_at_once() {
    let proxy = one_tenant(|tenant| tenant.pool_size(1));
    let mut one = proxy.connect("acme").login();
    let mut two = proxy.connect("acme").login();
    let mut sender = proxy.connect("acme").login();
    for listener in [&mut one, &mut two] {
        listener.exec("listen news");
    }
    two.exec("begin; unlisten news; rollback");
    for n in 0..5 {
        sender.exec(&format!("notify news, '{n}'"));
    }
    let frames = one.ask(&Request::new().query("notify news, 'own'"));
    let payloads = |frames: &[crate::harness::Frame]| -> Vec<String> {
        let notifications = frames.iter().filter(|frame| frame.tag == b'A');
        notifications
            .map(|frame| {
                let body = frame.body.get(4..).unwrap();
                let text = body.split(|b| *b == 0).nth(1).unwrap();
                String::from_utf8(text.to_vec()).unwrap()
            })
            .collect()
    };
    let all = ["0", "1", "2", "3", "4", "own"];
    assert_eq!(payloads(&frames), all, "before the own end is told");
    let mut heard = Vec::new();
    while heard.len() < all.len() {
        heard.extend(payloads(&[two.next()]));
    }
    assert_eq!(heard, all);
}

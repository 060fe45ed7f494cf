//! What is slow, huge or interrupted behind a transaction: the session goes on as on a connection of its
//! own, and every place that it took is given back.

use crate::harness::{Client, eventually, proxy::one_tenant};

/// Values that are short enough to be carried one by one, and far too long together.
const LARGE_SETTINGS: &str = "select count(set_config('app.large_' || i, repeat('x', 60000), false)) \
                              from generate_series(1, 20) i";

/// Has the pool know the names, as only a text shows them.
fn name_large_settings(client: &mut Client) {
    for i in 1..=20 {
        client.exec(&format!("set app.large_{i} = ''; reset app.large_{i}"));
    }
}

#[test]
fn settings_too_large_to_be_told_keep_the_server_and_the_session() {
    let proxy = one_tenant(|tenant| tenant.pool_size(2));
    let mut client = proxy.connect("acme").login();
    name_large_settings(&mut client);
    client.exec(LARGE_SETTINGS);
    for _ in 0..3 {
        let length = client.value("select length(current_setting('app.large_20'))");
        assert_eq!(length, "60000");
    }
    assert!(client.value("show pgusher.pin").contains("setting"));
    let mut other = proxy.connect("acme").login();
    let theirs = "select coalesce(current_setting('app.large_1', true), '')";
    assert_eq!(other.value(theirs), "");
    drop(client);
    eventually("the place of the pin is free again", || {
        let others = (0..2).map(|_| proxy.connect("acme").login());
        others
            .into_iter()
            .all(|mut one| one.value(theirs).is_empty())
    });
    other.is_in_step();
}

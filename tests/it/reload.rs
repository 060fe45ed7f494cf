//! A changed file: who it concerns notices, nobody else does.

use crate::harness::{
    DEADLINE, Key, Mode, Postgres, Proxy, Tenant, eventually, eventually_some, frames::code,
    proxy_file::KEY,
};
use std::fs;

fn tenant(id: &str) -> Tenant {
    Tenant::new(id, &Postgres::shared().place()).pool_size(2)
}

#[test]
fn a_tenant_is_added_without_touching_others() {
    let mut proxy = Proxy::of([tenant("acme")]).start();
    let mut client = proxy.connect("acme").login();
    client.exec("begin");
    let pid = client.server_pid();
    assert_eq!(
        proxy.connect("acme").user("newer").refused().code(),
        "28P01"
    );
    proxy.reload(|file| file.tenants.push(tenant("newer")));
    let mut newer = eventually_some("the new tenant logs in", || {
        proxy.connect("newer").try_login().ok()
    });
    assert_eq!(
        newer.value("select current_user"),
        proxy.place("newer").role()
    );
    assert_eq!(client.server_pid(), pid);
    client.exec("commit");
    client.is_in_step();
}

#[test]
fn a_removed_tenant_leaves_and_others_stay() {
    for mode in [Mode::Session, Mode::Transaction] {
        let mut proxy = Proxy::of([tenant("acme").mode(mode), tenant("gone").mode(mode)]).start();
        let mut client = proxy.connect("acme").login();
        client.exec("begin");
        let pid = client.server_pid();
        let mut gone = proxy.connect("gone").login();
        gone.exec("select 1");
        let place = proxy.place("gone");
        let mut admin = place.admin();
        proxy.reload(|file| file.tenants.retain(|tenant| tenant.id != "gone"));
        gone.ends_with("57P01");
        assert_eq!(proxy.connect("acme").user("gone").refused().code(), "28P01");
        eventually("its servers are closed", || {
            place.server_pids(&mut admin).is_empty()
        });
        assert_eq!(client.server_pid(), pid);
        client.exec("commit");
        client.is_in_step();
    }
}

#[test]
fn a_suspended_tenant_leaves_and_returns() {
    let mut proxy = Proxy::of([tenant("acme"), tenant("other")]).start();
    let mut client = proxy.connect("acme").login();
    let mut other = proxy.connect("other").login();
    client.exec("select 1");
    proxy.reload(|file| file.set_tenant("acme", "status", "suspended"));
    client.ends_with("57P01");
    assert!(proxy.connect("acme").try_login().is_err());
    other.is_in_step();
    proxy.reload(|file| file.set_tenant("acme", "status", "active"));
    eventually("it is back", || proxy.connect("acme").try_login().is_ok());
}

#[test]
fn a_changed_key_opens_and_the_old_one_no_longer_does() {
    let mut proxy = Proxy::of([tenant("acme")]).start();
    let mut client = proxy.connect("acme").login();
    proxy.reload(|file| {
        let changed = file.tenant("acme").clone().key(Key::new("the new key"));
        *file.tenant("acme") = changed;
    });
    let new = proxy.connect("acme").password("the new key");
    eventually("the new key opens", || new.try_login().is_ok());
    assert_eq!(
        proxy.connect("acme").password(KEY).refused().code(),
        "28P01"
    );
    // Whoever is in stays in, unless the proxy says that a revoked key ends its sessions.
    client
        .try_send_bytes(crate::harness::Request::new().query("select 1").bytes())
        .ok();
    let answer = client.next_or_end();
    let is_told = answer.is_some_and(|frame| frame.tag == b'T' || frame.fields().code() == "57P01");
    assert!(is_told);
}

#[test]
fn a_changed_context_holds_for_new_transactions() {
    let mut proxy = Proxy::of([
        tenant("acme").settings(&[("work_mem", "5MB")]),
        tenant("other"),
    ])
    .start();
    let mut client = proxy.connect("acme").login();
    let mut other = proxy.connect("other").login();
    let pid = other.server_pid();
    assert_eq!(client.value("show work_mem"), "5MB");
    proxy.reload(|file| {
        let changed = file.tenant("acme").clone().settings(&[("work_mem", "6MB")]);
        *file.tenant("acme") = changed;
    });
    eventually("new logins have it", || {
        proxy.connect("acme").login().value("show work_mem") == "6MB"
    });
    client.is_in_step();
    assert_eq!(other.server_pid(), pid);
}

#[test]
fn a_file_with_an_error_changes_nothing_and_is_told() {
    let mut proxy = Proxy::of([tenant("acme")]).start();
    let mut client = proxy.connect("acme").login();
    let path = proxy.folder().join("proxy.toml");
    let good = fs::read_to_string(&path).unwrap();
    let bad = [
        "this is not TOML [".to_owned(),
        good.replace("pool_size = 2", "pool_size = \"many\""),
        good.replace("pool_mode = \"transaction\"", "pool_mode = \"eternal\""),
        good.replace("verifier = \"SCRAM", "verifier = \"BROKEN"),
        String::new(),
    ];
    for text in bad {
        assert_ne!(text, good);
        let before = proxy.log().len();
        fs::write(&path, &text).unwrap();
        proxy.signal("HUP");
        eventually("the log says so", || {
            proxy.log()[before..].contains("ERROR")
        });
        assert!(proxy.is_alive());
        client.is_in_step();
        proxy.connect("acme").login().is_in_step();
    }
    proxy.reload(|file| file.tenants.push(tenant("newer")));
    eventually("a good file is taken again", || {
        proxy.connect("newer").try_login().is_ok()
    });
}

#[test]
fn the_file_is_read_when_it_changes_without_a_signal() {
    let mut proxy = Proxy::of([tenant("acme")])
        .set("auth_failures_per_minute", 100_000)
        .start();
    let path = proxy.folder().join("proxy.toml");
    proxy.file.tenants.push(tenant("by-write"));
    fs::write(&path, proxy.file.render()).unwrap();
    eventually("written in place", || {
        proxy.connect("by-write").try_login().is_ok()
    });
    proxy.file.tenants.push(tenant("by-rename"));
    let fresh = proxy.folder().join("fresh");
    fs::write(&fresh, proxy.file.render()).unwrap();
    fs::rename(&fresh, &path).unwrap();
    eventually("renamed over", || {
        proxy.connect("by-rename").try_login().is_ok()
    });
}

#[test]
fn a_certificate_is_exchanged_without_ending_anyone() {
    let proxy = Proxy::of([tenant("acme")]).tls().start();
    let old = proxy.tls();
    let mut client = proxy.connect("acme").tls(old.clone()).login();
    // A new authority over the same files: who trusts only the old one no longer connects.
    let authority = crate::harness::certificates::Authority::new(proxy.folder());
    authority.sign("proxy");
    proxy.signal("HUP");
    let new = proxy.tls();
    eventually("the new certificate is shown", || {
        let connect = proxy.connect("acme").tls(new.clone());
        connect.try_open().is_ok() && connect.try_login().is_ok()
    });
    client.is_in_step();
    assert!(proxy.connect("acme").tls(old).try_open().is_err());
}

#[test]
fn many_reloads_under_load_disturb_nobody() {
    let mut proxy = Proxy::of([tenant("acme"), tenant("other")]).start();
    let connect = proxy.connect("acme");
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = connect.login();
                while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(code(&client.query("begin; select 1; commit")), "");
                }
            });
        }
        for round in 0..20 {
            proxy.reload(|file| {
                file.set_tenant("acme", "pool_size", 1 + round % 3);
                file.set_tenant("other", "max_client_connections", 5 + round);
            });
            std::thread::park_timeout(DEADLINE / 200);
        }
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

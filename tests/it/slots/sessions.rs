//! What a session has of its own stays with it, whatever slot it is served by.

use super::{Stage, ids, token};
use crate::harness::{Request, frames::error};
use pgusher::tenant::PoolMode;

#[test]
fn settings_of_the_tenant_and_of_the_session_follow_it() {
    let ids = ids(2);
    let stage = Stage::of(&ids, 1, |tenant| {
        let id: Box<str> = tenant.id.as_str().into();
        tenant.settings = vec![
            ("TimeZone".into(), "Asia/Tokyo".into()),
            ("app.tenant_id".into(), id),
        ];
    });
    let mut clients: Vec<_> = ids.iter().map(|id| (id, stage.client(id))).collect();
    for (id, client) in &mut clients {
        assert_eq!(client.parameters["TimeZone"], "Asia/Tokyo");
        client.exec(&format!("set app.own = 'of {id}'; set work_mem = '5MB'"));
    }
    for _ in 0..3 {
        for (id, client) in &mut clients {
            assert_eq!(client.value("show timezone"), "Asia/Tokyo");
            assert_eq!(
                client.value("select current_setting('app.tenant_id')"),
                **id
            );
            assert_eq!(
                client.value("select current_setting('app.own')"),
                format!("of {id}")
            );
            assert_eq!(client.value("show work_mem"), "5MB");
        }
    }
    for (id, client) in &mut clients {
        client.exec("set timezone = 'UTC'");
        client.exec("reset all");
        assert_eq!(client.value("show timezone"), "Asia/Tokyo");
        assert_eq!(
            client.value("select current_setting('app.tenant_id')"),
            **id
        );
        assert_eq!(client.value("show work_mem"), "4MB");
        assert_eq!(client.value("show pgusher.tenant"), **id);
        assert_eq!(client.value("select ctl.tenant()"), token(id));
    }
}

#[test]
fn in_session_mode_a_slot_is_one_tenants_until_the_session_ends() {
    let ids = ids(2);
    let stage = Stage::of(&ids, 1, |tenant| {
        tenant.pool_mode = PoolMode::Session;
        tenant.settings = vec![("TimeZone".into(), "Asia/Tokyo".into())];
    });
    for _ in 0..2 {
        for id in &ids {
            let mut client = stage.client(id);
            let pid = client.server_pid();
            client.exec("set work_mem = '5MB'");
            assert_eq!(client.value("show work_mem"), "5MB");
            for reset in ["reset all", "discard all"] {
                client.exec(reset);
                assert_eq!(client.value("select ctl.tenant()"), token(id), "{reset}");
            }
            assert_eq!(client.value("show work_mem"), "4MB");
            assert_eq!(client.value("show timezone"), "Asia/Tokyo");
            assert_eq!(client.server_pid(), pid);
            drop(client);
            stage.is_idle(1);
        }
    }
}

#[test]
fn what_pins_a_session_keeps_its_tenant_too() {
    let ids = ids(2);
    let stage = Stage::of(&ids, 2, |_| ());
    let mut client = stage.client(&ids[0]);
    client.exec("insert into accounts values (1, 'own')");
    client.exec("begin; declare c cursor with hold for select 7; commit");
    let pid = client.server_pid();
    client.exec("reset all");
    assert_eq!(client.value("fetch c"), "7");
    assert_eq!(client.values("select secret from accounts"), ["own"]);
    let mut other = stage.client(&ids[1]);
    assert_ne!(other.server_pid(), pid);
    assert_eq!(other.values("select secret from accounts"), [""; 0]);
    client.exec("close c");
    assert_eq!(client.values("select secret from accounts"), ["own"]);
}

#[test]
fn listening_is_refused_in_words_and_the_session_goes_on() {
    for mode in [PoolMode::Transaction, PoolMode::Session] {
        let ids = ids(1);
        let stage = Stage::of(&ids, 1, |tenant| tenant.pool_mode = mode);
        let mut client = stage.client(&ids[0]);
        let simple = |sql: &str| Request::new().query(sql);
        for (request, ready) in [
            (simple("listen x"), 'I'),
            (simple("/* a */ LISTEN \"x y\""), 'I'),
            (simple("select 1; listen x"), 'I'),
            (Request::new().run("listen x", &[]).sync(), 'I'),
            (Request::new().parse("a name", "listen x").sync(), 'I'),
            (simple("begin"), 'T'),
            (simple("listen x"), 'E'),
            (simple("rollback"), 'I'),
            (simple("begin"), 'T'),
            (Request::new().run("listen x", &[]).sync(), 'E'),
            (simple("rollback"), 'I'),
        ] {
            let frames = client.ask(&request);
            let is_listen = request
                .bytes()
                .to_ascii_lowercase()
                .windows(6)
                .any(|w| w == b"listen");
            if is_listen {
                let error = error(&frames).expect("it is refused");
                assert_eq!(
                    (error.code(), error.severity()),
                    ("0A000", "ERROR"),
                    "{mode}"
                );
                assert!(error.text().contains("login of its own"), "{mode}");
            }
            assert_eq!(client.status, ready, "{mode}");
        }
        client.is_in_step();
        // One that is hidden ends the session, and says why.
        let long = format!("/*{}*/ listen x", "x".repeat(40_000));
        client.send(&simple(&long));
        client.ends_with("0A000");
        stage.is_idle(1);
    }
}

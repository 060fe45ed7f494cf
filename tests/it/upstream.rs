//! How the proxy logs in at PostgreSQL.

use crate::harness::{
    Place, Postgres, Proxy, Request, Tenant, certificates::Authority, frames::error, place::Login,
};

#[test]
fn every_way_of_postgresql_to_ask_for_a_password_is_answered() {
    let endpoint = Postgres::shared().endpoint();
    for login in [Login::Scram, Login::Md5, Login::Password, Login::Trust] {
        let place = Place::room(endpoint, login);
        let tenant = Tenant::new("acme", &place);
        let tenant = if login == Login::Trust {
            tenant.without("password")
        } else {
            tenant
        };
        let proxy = Proxy::of([tenant]).start();
        let mut client = proxy.connect("acme").login();
        assert_eq!(client.value("select current_user"), place.role());
    }
}

#[test]
fn upstream_tls_is_used_and_verified_as_configured() {
    let endpoint = Postgres::shared().endpoint();
    let place = Place::room(endpoint, Login::ScramOverTls);
    let start = |mode: &str, has_ca: bool| {
        let builder = Proxy::of([Tenant::new("acme", &place)]).cluster("tls", mode);
        let ca = endpoint.ca().display().to_string();
        if has_ca {
            builder.cluster("tls_ca", ca).start()
        } else {
            builder.start()
        }
    };
    for (mode, has_ca) in [
        ("require", false),
        ("verify-ca", true),
        ("verify-full", true),
    ] {
        let proxy = start(mode, has_ca);
        let mut client = proxy.connect("acme").login();
        let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
        assert_eq!(client.value(sql), "t", "{mode}");
    }
    let stranger = tempfile::tempdir().unwrap();
    let authority = Authority::new(stranger.path());
    for mode in ["verify-ca", "verify-full", "disable"] {
        let mut builder = Proxy::of([Tenant::new("acme", &place)]).cluster("tls", mode);
        if mode != "disable" {
            builder = builder.cluster("tls_ca", authority.ca.to_str().unwrap());
        }
        let proxy = builder.start();
        let refused = match proxy.connect("acme").try_login() {
            Err(frames) => error(&frames),
            Ok(mut client) => Some(client.fails("select 1")),
        };
        assert!(refused.is_some(), "{mode}");
    }
}

#[test]
fn a_role_that_postgresql_refuses_is_an_error_that_keeps_its_secrets() {
    let place = Postgres::shared().place();
    let proxy =
        Proxy::of([Tenant::new("acme", &place).set("password", "not the password")]).start();
    let error = match proxy.connect("acme").try_login() {
        Err(frames) => error(&frames).expect("an error"),
        Ok(mut client) => {
            client.send(&Request::new().query("select 1"));
            error(&client.until('E')).expect("an error")
        }
    };
    assert_ne!(
        error.code(),
        "28P01",
        "it is not the client's key that is wrong: {error:?}"
    );
    assert!(!error.text().contains("not the password"));
}

//! TLS towards clients: negotiated, direct, required, with certificates; and requests for it.

use crate::harness::{
    Client, Connect, Mode, Postgres, Proxy, Request, Tenant,
    frames::firsts,
    proxy::pooled,
    request::{gss_request, ssl_request},
    tags,
};

fn proxy_with_tls() -> Proxy {
    let place = Postgres::shared().place();
    Proxy::of([Tenant::new("acme", &place)]).tls().start()
}

fn log_in(client: &mut Client, connect: &Connect) {
    client.send_bytes(&connect.startup_packet());
    client
        .log_in(connect)
        .unwrap_or_else(|frames| panic!("login refused: {frames:?}"));
    client.is_in_step();
}

#[test]
fn encryption_requests_are_answered_n_where_there_is_none() {
    let proxy = pooled(Mode::Transaction, 1);
    let connect = proxy.connect("acme");
    let orders = [
        vec![ssl_request()],
        vec![gss_request()],
        vec![ssl_request(), gss_request()],
        vec![gss_request(), ssl_request()],
    ];
    for order in orders {
        let mut client = connect.open();
        for request in order {
            client.send_bytes(&request);
            assert_eq!(client.byte(), Some('N'));
        }
        log_in(&mut client, &connect);
    }
}

#[test]
fn encryption_requests_without_end_are_not_answered_without_end() {
    let proxy = pooled(Mode::Transaction, 1);
    for request in [ssl_request(), gss_request()] {
        let mut client = proxy.connect("acme").open();
        client.send_bytes(&request);
        assert_eq!(client.byte(), Some('N'));
        // To PostgreSQL the second one is a version of the protocol.
        client.send_bytes(&request);
        let error = client.ends_with("0A000");
        let text = "unsupported frontend protocol 1234.56";
        assert!(error.message().starts_with(text), "{error:?}");
    }
}

#[test]
fn tls_is_negotiated_after_an_ssl_request() {
    let proxy = proxy_with_tls();
    let connect = proxy.connect("acme").tls(proxy.tls());
    log_in(&mut connect.open(), &connect);
    let plain = proxy.connect("acme");
    log_in(&mut plain.open(), &plain);
    // A refused GSSENCRequest does not spoil TLS.
    let mut client = plain.open();
    client.send_bytes(&gss_request());
    assert_eq!(client.byte(), Some('N'));
    client.send_bytes(&ssl_request());
    assert_eq!(client.byte(), Some('S'));
}

#[test]
fn tls_from_the_first_byte_needs_the_protocols_name() {
    let proxy = proxy_with_tls();
    let named = proxy.tls_with(Some("postgresql"), None);
    let connect = proxy.connect("acme").direct_tls(named);
    log_in(&mut connect.open(), &connect);
    for name in [None, Some("http/1.1")] {
        let connect = proxy.connect("acme").direct_tls(proxy.tls_with(name, None));
        let Ok(mut client) = connect.try_open() else {
            continue;
        };
        client.try_send_bytes(&connect.startup_packet()).ok();
        assert_eq!(
            tags(&client.rest()).replace('E', ""),
            "",
            "no login without ALPN"
        );
    }
}

#[test]
fn bytes_smuggled_before_the_encryption_are_refused() {
    for proxy in [proxy_with_tls(), pooled(Mode::Transaction, 1)] {
        let connect = proxy.connect("acme");
        for request in [ssl_request(), gss_request()] {
            let mut client = connect.open();
            client.send_bytes(&[request, connect.startup_packet()].concat());
            let answer = client.byte();
            if !matches!(answer, None | Some('E')) {
                assert!(matches!(answer, Some('S' | 'N')), "{answer:?}");
                assert_eq!(
                    client.byte().filter(|byte| *byte == 'R'),
                    None,
                    "it was taken as startup"
                );
            }
        }
    }
}

#[test]
fn where_tls_is_required_plain_text_is_refused() {
    let place = Postgres::shared().place();
    let proxy = Proxy::of([Tenant::new("acme", &place)])
        .tls()
        .set("tls_mode", "require")
        .start();
    let connect = proxy.connect("acme").tls(proxy.tls());
    log_in(&mut connect.open(), &connect);
    let error = proxy.connect("acme").refused();
    assert_eq!(error.code(), "28000", "{error:?}");
}

#[test]
fn where_tls_is_disabled_it_is_not_offered() {
    let place = Postgres::shared().place();
    let proxy = Proxy::of([Tenant::new("acme", &place)])
        .tls()
        .set("tls_mode", "disable")
        .start();
    let mut client = proxy.connect("acme").open();
    client.send_bytes(&ssl_request());
    assert_eq!(client.byte(), Some('N'));
    log_in(&mut client, &proxy.connect("acme"));
}

#[test]
fn client_certificates_are_verified_and_can_be_required() {
    let place = Postgres::shared().place();
    for is_required in [false, true] {
        let proxy = Proxy::of([Tenant::new("acme", &place)])
            .tls()
            .set_path("tls_client_ca", "ca.crt")
            .set("tls_client_cert_required", is_required)
            .set("tls_mode", if is_required { "require" } else { "allow" })
            .start();
        let own = proxy.authority().sign("client");
        let with = proxy.connect("acme").tls(proxy.tls_with(None, Some(&own)));
        log_in(&mut with.open(), &with);
        let without = proxy.connect("acme").tls(proxy.tls());
        let accepted = without.try_open().is_ok_and(|mut client| {
            client.try_send_bytes(&without.startup_packet()).is_ok()
                && client.next_or_end().is_some_and(|frame| frame.tag == b'R')
        });
        assert_eq!(accepted, !is_required);
    }
}

#[test]
fn big_answers_and_pipelines_flow_over_tls() {
    let proxy = proxy_with_tls();
    let mut client = proxy.connect("acme").tls(proxy.tls()).login();
    let value = client.value("select repeat('tls ', 2000000)");
    assert_eq!(value.len(), 8_000_000);
    let mut request = Request::new().parse("s", "select $1::text");
    for number in 0..200 {
        request = request.run_prepared("s", &[&number.to_string()]).sync();
    }
    client.send(&request);
    for number in 0..200 {
        assert_eq!(firsts(&client.until_ready()), [number.to_string()]);
    }
    let big = "u".repeat(3_000_000);
    client.send(&Request::new().run("select length($1)", &[&big]).sync());
    assert_eq!(firsts(&client.until_ready()), ["3000000"]);
}

#[test]
fn a_client_that_cuts_tls_off_leaves_nothing_behind() {
    let place = Postgres::shared().place();
    let proxy = Proxy::of([Tenant::new("acme", &place).pool_size(1)])
        .tls()
        .start();
    let mut client = proxy.connect("acme").tls(proxy.tls()).login();
    client.exec("create table t (i int)");
    client.exec("begin; insert into t values (1)");
    // Without close_notify.
    drop(client);
    let mut next = proxy.connect("acme").tls(proxy.tls()).login();
    assert_eq!(next.value("select count(*) from t"), "0");
}

#[test]
fn bytes_within_tls_that_are_not_tls_end_the_connection() {
    let proxy = proxy_with_tls();
    let connect = proxy.connect("acme");
    for noise in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0x16, 3, 1, 0xff, 0xff, 1],
        &[0; 300],
    ] {
        let mut client = connect.open();
        client.send_bytes(&ssl_request());
        assert_eq!(client.byte(), Some('S'));
        client.try_send_bytes(noise).ok();
        client.half_close();
        assert!(client.ends());
    }
    connect.tls(proxy.tls()).login().is_in_step();
}

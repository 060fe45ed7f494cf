//! TLS towards clients: negotiated, direct, required, with certificates; and requests for it.

use crate::harness::{
    Client, Connect, Mode, Postgres, Proxy, Tenant,
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
    let mut client = proxy.connect("acme").open();
    let mut answers = 0;
    while client.try_send_bytes(&ssl_request()).is_ok() && client.byte() == Some('N') {
        answers += 1;
        assert!(answers < 10, "each kind of request is answered once");
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

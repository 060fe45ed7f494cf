//! API keys: what opens a tenant, and how all else looks the same from outside.

use crate::harness::{
    Connect, Frame, Key, Postgres, Proxy, Request, Tenant, eventually,
    frames::{code, error},
    proxy::one_tenant,
    proxy_file::KEY,
    scram,
};
use std::time::{Duration, Instant};

fn acme() -> Tenant {
    Tenant::new("acme", &Postgres::shared().place())
}

#[test]
fn the_key_opens_the_tenant() {
    let proxy = one_tenant(|tenant| tenant);
    let mut client = proxy.connect("acme").login();
    assert_eq!(
        client.value("select current_user"),
        proxy.place("acme").role()
    );
}

#[test]
fn a_wrong_key_is_28p01() {
    let proxy = one_tenant(|tenant| tenant);
    for key in [
        "wrong",
        "",
        "pgu_k1_",
        &KEY[1..],
        &format!("{KEY}x"),
        &"k".repeat(5000),
    ] {
        let error = proxy.connect("acme").password(key).refused();
        assert_eq!(error.code(), "28P01", "{key}");
        assert_eq!(
            error.message(),
            "password authentication failed for user \"acme\""
        );
    }
}

/// A refused login as an outsider sees it, without what is random.
fn outside(connect: &Connect, user: &str) -> Vec<String> {
    let frames = connect
        .clone()
        .user(user)
        .try_login()
        .err()
        .expect("a refusal");
    frames
        .iter()
        .map(|frame| without_chance(frame, user))
        .collect()
}

fn without_chance(frame: &Frame, user: &str) -> String {
    match frame.tag {
        b'R' if frame.body[3] == 11 => {
            let text = String::from_utf8(frame.body[4..].to_vec()).unwrap();
            let parts: Vec<_> = text.split(',').collect();
            format!(
                "SASL continue {} {} {}",
                parts[0].len(),
                parts[1].len(),
                parts[2]
            )
        }
        b'E' => format!("{:?}", frame.fields()).replace(user, "NAME"),
        _ => format!("{frame:?}"),
    }
}

#[test]
fn an_unknown_tenant_looks_like_a_wrong_key() {
    let proxy = Proxy::of([
        acme(),
        Tenant::new("gone", &Postgres::shared().place()).set("status", "suspended"),
    ])
    .start();
    let wrong = proxy.connect("acme").password("wrong");
    let expected = outside(&wrong, "acme");
    assert!(
        expected.iter().any(|line| line.contains("28P01")),
        "{expected:?}"
    );
    for user in [
        "nobody",
        "gone",
        "postgres",
        "ACME",
        "acme\u{fc}",
        "x'; --",
        &"u".repeat(63),
    ] {
        assert_eq!(outside(&wrong, user).len(), expected.len(), "{user}");
        for (one, other) in outside(&wrong, user).iter().zip(&expected) {
            assert_eq!(one, other, "{user}");
        }
    }
    // Right for someone else is still wrong.
    assert_eq!(outside(&proxy.connect("acme"), "nobody"), expected);
    let elsewhere = wrong.clone().database("elsewhere");
    assert_eq!(outside(&elsewhere, "nobody"), outside(&elsewhere, "acme"));
}

fn salt(proxy: &Proxy, user: &str) -> String {
    let connect = proxy.connect("acme").user(user).password("wrong");
    let frames = connect.try_login().err().expect("a refusal");
    let first = frames
        .iter()
        .find(|frame| frame.tag == b'R' && frame.body[3] == 11)
        .expect("SASL");
    let text = String::from_utf8(first.body[4..].to_vec()).unwrap();
    text.split(',').nth(1).unwrap().to_owned()
}

#[test]
fn the_salt_of_an_unknown_tenant_is_as_steady_as_a_known_ones() {
    let place = Postgres::shared().place();
    let builder = Proxy::of([Tenant::new("acme", &place)]);
    std::fs::write(builder.folder().join("auth.seed"), [7; 32]).unwrap();
    let mut proxy = builder.set_path("auth_seed_file", "auth.seed").start();
    let known = salt(&proxy, "acme");
    let unknown = salt(&proxy, "nobody");
    assert_eq!(salt(&proxy, "acme"), known);
    assert_eq!(salt(&proxy, "nobody"), unknown);
    assert_ne!(salt(&proxy, "somebody"), unknown);
    proxy.signal("TERM");
    proxy.end();
    proxy.start_again();
    assert_eq!(salt(&proxy, "nobody"), unknown, "after a restart");
}

#[test]
fn each_of_several_keys_opens_the_tenant() {
    let proxy = Proxy::of([acme()
        .key(Key::new("first"))
        .key(Key::new("second"))
        .key(Key::new("third"))])
    .tls()
    .start();
    for key in ["first", "second", "third"] {
        proxy.connect("acme").password(key).login().is_in_step();
        proxy
            .connect("acme")
            .password(key)
            .tls(proxy.tls())
            .bound_to_tls()
            .login()
            .is_in_step();
    }
    assert_eq!(
        proxy.connect("acme").password("fourth").refused().code(),
        "28P01"
    );
}

#[test]
fn scram_is_bound_to_tls_where_there_is_tls() {
    let proxy = Proxy::of([acme()]).tls().start();
    let connect = proxy.connect("acme").tls(proxy.tls());
    connect.clone().bound_to_tls().login().is_in_step();
    connect.login().is_in_step();
    let wrong = connect.bound_to_tls().password("wrong").refused();
    assert_eq!(wrong.code(), "28P01");
    // Without TLS there is nothing to bind to, and PLUS is not offered.
    let frames = proxy
        .connect("acme")
        .password("wrong")
        .try_login()
        .err()
        .unwrap();
    assert!(
        !frames[0].body.windows(5).any(|bytes| bytes == b"-PLUS"),
        "{:?}",
        frames[0]
    );
}

#[test]
fn a_client_that_thinks_plus_was_not_offered_is_refused() {
    let proxy = Proxy::of([acme()]).tls().start();
    let connect = proxy.connect("acme").tls(proxy.tls());
    let mut client = connect.open();
    client.send_bytes(&connect.startup_packet());
    assert!(
        client
            .next()
            .body
            .windows(18)
            .any(|bytes| bytes == b"SCRAM-SHA-256-PLUS")
    );
    // "y": I can bind, but you did not offer it. Someone in between took the offer away.
    let first = b"y,,n=,r=abcdefghijklmnopqrstuvwx";
    let length = u32::try_from(first.len()).unwrap().to_be_bytes();
    client.send(&Request::new().message(b'p', &[&b"SCRAM-SHA-256\0"[..], &length, first].concat()));
    let refusal = error(&client.rest()).expect("an error");
    assert_eq!(refusal.code(), "28000", "{refusal:?}");
}

#[test]
fn a_broken_scram_exchange_ends_in_an_error() {
    let proxy = one_tenant(|tenant| tenant);
    let connect = proxy.connect("acme");
    let sasl = |mechanism: &str, length: i32, first: &[u8]| {
        [mechanism.as_bytes(), b"\0", &length.to_be_bytes(), first].concat()
    };
    let bodies = [
        vec![],
        sasl("SCRAM-SHA-1", 4, b"n,,x"),
        sasl("SCRAM-SHA-256", 4, b"n,,x"),
        sasl("SCRAM-SHA-256", -1, b""),
        sasl("SCRAM-SHA-256", i32::MAX, b"n,,n=,r=abc"),
        sasl("SCRAM-SHA-256", 2, b"n,,n=,r=abc"),
        sasl("SCRAM-SHA-256", 10, b"n,,n=,r=\0\0"),
        sasl("SCRAM-SHA-256-PLUS", 12, b"p=x,,n=,r=ab"),
        vec![255; 2000],
        KEY.as_bytes().to_vec(),
    ];
    for body in bodies {
        let mut client = connect.open();
        client.send_bytes(&connect.startup_packet());
        client.next();
        client.send(&Request::new().message(b'p', &body));
        let code = code(&client.rest());
        assert!(
            code == "08P01" || code.starts_with("28"),
            "{code:?} for {}",
            body.escape_ascii()
        );
    }
    connect.login().is_in_step();
}

#[test]
fn other_messages_before_the_login_are_refused() {
    let proxy = one_tenant(|tenant| tenant);
    let connect = proxy.connect("acme");
    for request in [
        Request::new().query("select 1"),
        Request::new().sync(),
        Request::new().terminate(),
    ] {
        let mut client = connect.open();
        client.send_bytes(&connect.startup_packet());
        assert_eq!(client.next().kind(), 'R');
        client.send(&request);
        let frames = client.rest();
        assert!(frames.iter().all(|frame| frame.tag == b'E'), "{frames:?}");
    }
}

/// A client that answers every request with its key as it is.
fn with_plain_password(connect: &Connect) -> Vec<Frame> {
    let mut client = connect.open();
    client.send_bytes(&connect.startup_packet());
    let first = client.next();
    if first.tag == b'R' && first.body[3] == 3 {
        client.send(&Request::new().message(b'p', format!("{KEY}\0").as_bytes()));
        return client.until_ready();
    }
    vec![first]
}

#[test]
fn a_plain_password_is_never_asked_for_outside_tls() {
    let proxy = one_tenant(|tenant| tenant);
    let frames = with_plain_password(&proxy.connect("acme"));
    assert_eq!(frames[0].body[3], 10, "SASL, not a password: {frames:?}");
}

#[test]
fn keys_have_a_time() {
    let proxy = Proxy::of([acme()
        .key(Key::new("expired").set("expires", "2020-01-31T00:00:00Z"))
        .key(Key::new("early").set("not_before", "2120-01-31T00:00:00Z"))
        .key(
            Key::new("now")
                .set("not_before", "2020-01-31T00:00:00Z")
                .set("expires", "2120-01-31T00:00:00Z"),
        )])
    .start();
    proxy.connect("acme").password("now").login().is_in_step();
    for key in ["expired", "early"] {
        let error = proxy.connect("acme").password(key).refused();
        assert_eq!(error.code(), "28P01", "{key}");
        assert_eq!(
            error.message(),
            "password authentication failed for user \"acme\""
        );
    }
}

#[test]
fn keys_have_an_address_list() {
    let proxy = Proxy::of([acme()
        .key(Key::new("near").set("allow", vec!["127.0.0.2/32", "10.0.0.0/8"]))
        .key(Key::new("all"))])
    .start();
    let near = proxy.connect("acme").password("near");
    near.clone().from("127.0.0.2").login().is_in_step();
    assert_eq!(near.from("127.0.0.3").refused().code(), "28P01");
    proxy
        .connect("acme")
        .password("all")
        .from("127.0.0.3")
        .login()
        .is_in_step();
}

#[test]
fn a_suspended_tenant_is_told_so_when_it_has_the_key() {
    let proxy = Proxy::of([acme().set("status", "suspended")]).start();
    let error = proxy.connect("acme").refused();
    assert_eq!(error.severity(), "FATAL");
    assert!(error.text().contains("suspended"), "{error:?}");
    assert_eq!(
        proxy.connect("acme").password("wrong").refused().code(),
        "28P01"
    );
}

#[test]
fn a_read_only_key_gets_the_role_that_cannot_write() {
    let place = Postgres::shared().database();
    let reader = place.add_reader();
    let tenant = Tenant::new("acme", &place)
        .set("read_only_role", reader.as_str())
        .set("read_only_password", crate::harness::place::ROLE_PASSWORD)
        .key(Key::new("writer"))
        .key(Key::new("reader").set("scope", "read_only"));
    let proxy = Proxy::of([tenant]).start();
    let mut writer = proxy.connect("acme").password("writer").login();
    writer.exec("create table t (i int); insert into t values (1)");
    let mut client = proxy.connect("acme").password("reader").login();
    assert_eq!(client.value("select current_user"), reader);
    assert_eq!(client.value("select count(*) from t"), "1");
    // PostgreSQL refuses it, and not only because the session says that it only reads.
    let refusal = client.fails("insert into t values (2)");
    assert!(["42501", "25006"].contains(&refusal.code()), "{refusal:?}");
    let sql = "begin read write; insert into t values (2)";
    assert_eq!(client.fails(sql).code(), "42501");
    client.exec("rollback");
    assert_eq!(writer.value("select current_user"), place.role());
    assert_eq!(writer.value("select count(*) from t"), "1");
}

#[test]
fn a_read_only_key_without_a_role_for_it_is_refused_somewhere() {
    let tenant = acme().key(Key::new("reader").set("scope", "read_only"));
    let file = crate::harness::ProxyFile::new(Postgres::shared().endpoint(), vec![tenant]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.toml");
    std::fs::write(&path, file.render()).unwrap();
    let output = crate::harness::programs::pgusher(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("read_only_role"), "{said}");
}

#[test]
fn failed_logins_are_throttled_where_they_come_from() {
    let proxy = Proxy::of([acme(), Tenant::new("other", &Postgres::shared().place())])
        .set("auth_failures_per_minute", 3)
        .set("login_timeout", "2s")
        .start();
    let attacker = proxy.connect("acme").password("wrong").from("127.0.0.9");
    let start = Instant::now();
    let mut is_slowed = false;
    for _ in 0..8 {
        let attempt = Instant::now();
        let refusal = attacker.try_login().err().expect("a wrong key never opens");
        let is_slow = attempt.elapsed() > Duration::from_millis(500);
        is_slowed |= is_slow || error(&refusal).is_none_or(|error| error.code() != "28P01");
        if is_slowed || start.elapsed() > crate::harness::DEADLINE {
            break;
        }
    }
    assert!(
        is_slowed,
        "eight failures went through as fast as the first"
    );
    // Someone else, from elsewhere, is not slowed.
    let other = proxy.connect("other").from("127.0.0.8");
    for _ in 0..8 {
        other.login().is_in_step();
    }
}

#[test]
fn guesses_behind_an_address_lock_out_nobody_who_is_known_there() {
    let place = Postgres::shared().place();
    let proxy = Proxy::of([
        acme(),
        Tenant::new("other", &place),
        Tenant::new("third", &place),
    ])
    .set("auth_failures_per_minute", 3)
    .start();
    let shared = |tenant| proxy.connect(tenant).from("127.0.0.9");
    shared("other").login().is_in_step();
    let attacker = shared("acme").password("wrong");
    let guess = || attacker.try_login().err().expect("a wrong key never opens");
    for _ in 0..4 {
        guess();
    }
    let told = format!("{:?}", error(&guess()).unwrap());
    assert!(told.contains("Too many failed logins"), "{told}");
    for _ in 0..4 {
        shared("other").login().is_in_step();
    }
    let told = shared("third").refused();
    assert_eq!(told.code(), "28P01");
    assert!(
        format!("{told:?}").contains("Too many failed logins"),
        "{told:?}"
    );
    proxy
        .connect("third")
        .from("127.0.0.8")
        .login()
        .is_in_step();
}

#[test]
fn no_secret_is_logged() {
    let proxy = Proxy::of([acme()]).set("log_level", "debug").start();
    proxy
        .connect("acme")
        .login()
        .exec("select 'a secret of the statement'");
    proxy.connect("acme").password("a wrong key").refused();
    eventually("the connections are logged", || {
        proxy.log().contains("acme")
    });
    let verifier = scram::verifier(KEY, &scram::salt("acme"));
    let (_, keys) = verifier.rsplit_once('$').unwrap();
    for secret in [
        KEY,
        keys,
        "a wrong key",
        crate::harness::place::ROLE_PASSWORD,
        "a secret of the statement",
    ] {
        assert!(!proxy.log().contains(secret), "the log has {secret:?}");
    }
}

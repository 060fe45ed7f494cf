//! From the first byte to the login: versions, encryption requests, the startup packet.

use crate::harness::{
    Client, Connect, Frame, Mode, Postgres, Proxy, Request, Tenant, code_of_end,
    connect::{V3_0, V3_2},
    frames::error,
    proxy::{one_tenant, pooled},
    proxy_file::KEY,
    request::{ssl_request, startup, untyped},
    tags,
};

fn log_in(client: &mut Client, connect: &Connect) {
    client.send_bytes(&connect.startup_packet());
    client
        .log_in(connect)
        .unwrap_or_else(|frames| panic!("login refused: {frames:?}"));
    client.is_in_step();
}

#[test]
fn a_login_says_what_postgresql_says() {
    let proxy = pooled(Mode::Transaction, 1);
    let direct = proxy.place("acme").direct().login();
    let client = proxy.connect("acme").login();
    assert!(
        tags(&client.login_frames).starts_with("RRRR"),
        "{:?}",
        client.login_frames
    );
    assert!(
        tags(&client.login_frames).ends_with("KZ"),
        "{:?}",
        client.login_frames
    );
    let names: Vec<_> = direct.parameters.keys().collect();
    for name in names {
        let mine = client.parameters.get(name);
        assert!(mine.is_some(), "{name} is not reported");
        if name != "session_authorization" {
            assert_eq!(mine, direct.parameters.get(name), "{name}");
        }
    }
    assert_eq!(client.status, 'I');
}

/// The `NegotiateProtocolVersion` messages of a login: minor version and unknown options.
fn negotiated(frames: &[Frame]) -> Vec<(u32, Vec<String>)> {
    let read = |frame: &Frame| {
        let (head, rest) = frame.body.split_at(8);
        let version = u32::from_be_bytes(head[..4].try_into().unwrap());
        let count = u32::from_be_bytes(head[4..].try_into().unwrap());
        let names = Frame {
            tag: b'v',
            body: rest.to_vec(),
        };
        let names = if count == 0 {
            Vec::new()
        } else {
            names.strings()
        };
        assert_eq!(names.len(), usize::try_from(count).unwrap(), "{frame:?}");
        (version & 0xffff, names)
    };
    frames
        .iter()
        .filter(|frame| frame.tag == b'v')
        .map(read)
        .collect()
}

#[test]
fn an_unknown_minor_version_is_negotiated_once() {
    let proxy = pooled(Mode::Transaction, 1);
    let connect = proxy
        .connect("acme")
        .version(0x0003_270f)
        .parameter("_pq_.foo", "on");
    let client = connect.login();
    assert_eq!(
        negotiated(&client.login_frames),
        [(2, vec!["_pq_.foo".to_owned()])]
    );
    assert_eq!(client.login_frames[0].tag, b'v', "before authentication");
}

#[test]
fn unknown_protocol_options_are_named() {
    let proxy = pooled(Mode::Transaction, 1);
    let connect = proxy
        .connect("acme")
        .parameter("_pq_.one", "1")
        .parameter("_pq_.two", "2");
    let mut client = connect.login();
    let expected = vec!["_pq_.one".to_owned(), "_pq_.two".to_owned()];
    let [(_, names)] = &negotiated(&client.login_frames)[..] else {
        panic!("{:?}", client.login_frames)
    };
    assert_eq!(*names, expected);
    client.is_in_step();
}

#[test]
fn a_known_version_is_not_negotiated() {
    let proxy = pooled(Mode::Transaction, 1);
    for version in [V3_0, V3_2] {
        let client = proxy.connect("acme").version(version).login();
        assert_eq!(negotiated(&client.login_frames), []);
        assert_eq!(
            client.secret.len() > 4,
            version == V3_2,
            "the key of {version:#x}"
        );
        assert!(client.secret.len() <= 256);
    }
}

#[test]
fn an_unsupported_major_version_is_refused() {
    let proxy = pooled(Mode::Transaction, 1);
    for version in [0x0002_0000, 0x0004_0000, 0x0001_0000] {
        let connect = proxy.connect("acme").version(version);
        let mut client = connect.open();
        client.send_bytes(&connect.startup_packet());
        // PostgreSQL answers the second version in its own form, without a SQLSTATE.
        let answer = String::from_utf8_lossy(&client.raw_rest()).into_owned();
        assert!(answer.starts_with('E'), "{version:#x}: {answer:?}");
        assert!(
            answer.contains("unsupported frontend protocol"),
            "{version:#x}: {answer:?}"
        );
        assert!(
            answer.contains("0A000") || version == 0x0002_0000,
            "{version:#x}: {answer:?}"
        );
    }
}

#[test]
fn a_startup_packet_without_a_user_is_refused() {
    let proxy = pooled(Mode::Transaction, 1);
    assert_eq!(
        proxy
            .connect("acme")
            .without("user")
            .database("acme")
            .refused()
            .code(),
        "28000"
    );
    let mut client = proxy.connect("acme").open();
    client.send_bytes(&startup(V3_0, &[]));
    assert_eq!(client.ends_with("28000").severity(), "FATAL");
    assert_eq!(proxy.connect("").refused().code(), "28000");
}

#[test]
fn of_two_users_the_last_counts_or_none() {
    let place = Postgres::shared().place();
    let other = Postgres::shared().place();
    let proxy = Proxy::of([Tenant::new("acme", &place), Tenant::new("other", &other)]).start();
    let connect = proxy.connect("acme").password(KEY);
    let mut client = connect.open();
    client.send_bytes(&startup(V3_0, &[("user", "other"), ("user", "acme")]));
    match client.log_in(&connect) {
        Ok(()) => assert_eq!(client.value("select current_user"), place.role()),
        Err(frames) => assert_eq!(error(&frames).unwrap().code(), "08P01"),
    }
}

#[test]
fn a_startup_packet_may_arrive_byte_by_byte() {
    let proxy = pooled(Mode::Transaction, 1);
    let connect = proxy.connect("acme");
    let mut client = connect.open();
    for byte in connect.startup_packet() {
        client.send_bytes(&[byte]);
    }
    client.log_in(&connect).unwrap();
    client.is_in_step();
}

#[test]
fn a_startup_packet_is_bounded_and_held_to_its_form() {
    let proxy = pooled(Mode::Transaction, 1);
    let connect = proxy.connect("acme");
    let version = V3_0.to_be_bytes();
    let unterminated = untyped(&[&version[..], b"user\0acme\0"].concat());
    let no_nul = untyped(&[&version[..], b"user\0acme"].concat());
    let odd = untyped(&[&version[..], b"user\0acme\0database\0\0"].concat());
    let after_end = untyped(&[&version[..], b"user\0acme\0\0more\0"].concat());
    let lengths = [0_i32, -1, 1, 3, 4, 7, 10_001, 1 << 20, i32::MAX, i32::MIN];
    let mut packets = vec![
        unterminated,
        no_nul,
        odd,
        after_end,
        vec![0; 8],
        vec![255; 8],
    ];
    packets.extend(lengths.map(|length| [&length.to_be_bytes()[..], &version[..]].concat()));
    for packet in packets {
        let mut client = connect.open();
        client.send_bytes(&packet);
        client.half_close();
        let frames = client.rest();
        let codes: Vec<_> = frames
            .iter()
            .map(|frame| frame.fields().code().to_owned())
            .collect();
        let is_expected = codes
            .iter()
            .all(|code| ["08P01", "0A000", "28000"].contains(&code.as_str()));
        assert!(
            is_expected && codes.len() <= 1,
            "{}: {frames:?}",
            packet.escape_ascii()
        );
    }
    log_in(&mut connect.open(), &connect);
}

#[test]
fn what_is_no_startup_packet_is_answered_as_postgresql_answers_it() {
    let proxy = pooled(Mode::Transaction, 1);
    let ways = [proxy.connect("acme"), proxy.place("acme").direct()];
    let version = V3_0.to_be_bytes();
    let of_length = |length: i32| [&length.to_be_bytes()[..], &version].concat();
    let mut packets: Vec<_> = [0, -1, 4, 7, 10_005, 1 << 20, i32::MAX, i32::MIN]
        .map(of_length)
        .into();
    packets.extend([
        // A cancel request without its secret.
        untyped(&[&80_877_102_u32.to_be_bytes()[..], &[0, 0, 0, 9]].concat()),
        // Neither a whole length nor a whole packet.
        vec![0, 0],
        of_length(100),
        // No terminator, none where it must be, no packet at all.
        untyped(&version),
        untyped(&[&version[..], b"user\0acme\0"].concat()),
        untyped(&[&version[..], b"user\0acme\0\0more\0"].concat()),
        untyped(&[&version[..], b"database\0acme\0\0"].concat()),
    ]);
    for packet in packets {
        let answers = ways.each_ref().map(|way| {
            let mut client = way.open();
            client.send_bytes(&packet);
            client.half_close();
            let frames = client.rest();
            frames
                .iter()
                .map(|frame| frame.fields().code().to_owned())
                .collect::<Vec<_>>()
        });
        assert_eq!(answers[0], answers[1], "{}", packet.escape_ascii());
    }
}

#[test]
fn a_notice_of_the_login_is_told_where_postgresql_tells_it() {
    let name = "n".repeat(65);
    for mode in [Mode::Session, Mode::Transaction] {
        let proxy = pooled(mode, 1);
        let logins = [proxy.place("acme").direct(), proxy.connect("acme")];
        let [direct, first] = logins.map(|way| way.parameter("application_name", &name).login());
        let second = proxy
            .connect("acme")
            .parameter("application_name", &name)
            .login();
        let told = |client: &Client| {
            let frames = &client.login_frames;
            let at = frames.iter().position(|frame| frame.tag == b'N')?;
            let notice = frames[at].fields();
            let words = (notice.severity(), notice.code(), notice.message());
            let words = <[&str; 3]>::from(words).map(ToOwned::to_owned);
            Some((words, frames[at - 1].tag, frames[at + 1].tag))
        };
        assert!(told(&direct).is_some_and(|(words, ..)| words[1] == "42622"));
        assert_eq!(told(&first), told(&direct), "{mode:?}");
        assert_eq!(told(&second), told(&direct), "{mode:?}, known settings");
    }
}

#[test]
fn a_notice_of_the_login_that_the_client_does_not_want_is_not_told() {
    let proxy = pooled(Mode::Transaction, 1);
    let name = "n".repeat(65);
    let login = |options: &str| {
        let connect = proxy.connect("acme").options(options);
        let client = connect.parameter("application_name", &name).login();
        tags(&client.login_frames).contains('N')
    };
    assert!(!login("-c client_min_messages=error"));
    // The one before has not left its wish to the next.
    assert!(login(""));
}

#[test]
fn a_startup_packet_of_a_megabyte_is_refused_without_being_read() {
    let proxy = pooled(Mode::Transaction, 1);
    let connect = proxy.connect("acme");
    let before = proxy.resident_bytes();
    let value = "x".repeat(1 << 20);
    let packet = startup(V3_0, &[("user", "acme"), ("application_name", &value)]);
    let mut clients: Vec<_> = (0..10).map(|_| connect.open()).collect();
    for client in &mut clients {
        client.try_send_bytes(&packet).ok();
    }
    for client in &mut clients {
        assert!(client.rest().iter().all(|frame| frame.tag == b'E'));
    }
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(
        grown < 5 << 20,
        "{grown} bytes for packets that are refused"
    );
}

#[test]
fn a_long_startup_packet_within_bounds_is_accepted() {
    let proxy = pooled(Mode::Transaction, 1);
    let name = "n".repeat(60);
    let options = "-c work_mem=8MB ".repeat(100);
    let mut client = proxy
        .connect("acme")
        .parameter("application_name", &name)
        .options(&options)
        .login();
    assert_eq!(client.value("show application_name"), name);
    assert_eq!(client.value("show work_mem"), "8MB");
}

#[test]
fn replication_is_refused() {
    let proxy = pooled(Mode::Session, 1);
    for value in ["1", "true", "on", "yes", "database"] {
        let error = proxy
            .connect("acme")
            .parameter("replication", value)
            .refused();
        assert_eq!(error.code(), "0A000", "replication={value}: {error:?}");
    }
    let mut client = proxy
        .connect("acme")
        .parameter("replication", "false")
        .login();
    client.is_in_step();
}

#[test]
fn the_database_is_the_tenants_or_left_out() {
    let place = Postgres::shared().database();
    let proxy = Proxy::of([Tenant::new("acme", &place)]).start();
    for database in ["acme", place.database_name(), ""] {
        let mut client = proxy.connect("acme").database(database).login();
        assert_eq!(
            client.value("select current_database()"),
            place.database_name()
        );
    }
    let mut client = proxy.connect("acme").login();
    assert_eq!(
        client.value("select current_database()"),
        place.database_name()
    );
    for database in ["postgres", "template1", "ACME", "acme2"] {
        let error = proxy.connect("acme").database(database).refused();
        assert_eq!(error.code(), "3D000", "{database}: {error:?}");
        assert!(error.message().contains(database), "{error:?}");
    }
}

#[test]
fn a_wrong_database_is_told_only_to_who_has_the_key() {
    let proxy = pooled(Mode::Transaction, 1);
    let error = proxy
        .connect("acme")
        .database("postgres")
        .password("wrong")
        .refused();
    assert_eq!(error.code(), "28P01");
}

#[test]
fn a_client_that_only_looks_in_is_no_harm() {
    let proxy = one_tenant(|tenant| tenant);
    for bytes in [
        &[][..],
        &[0],
        &ssl_request()[..7],
        Request::new().terminate().bytes(),
    ] {
        let mut client = proxy.connect("acme").open();
        client.send_bytes(bytes);
        client.half_close();
        code_of_end(&mut client);
    }
    proxy.connect("acme").login().is_in_step();
}

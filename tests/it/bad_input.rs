//! Bytes that no client should send: a clear error or a clean end, and nobody else is harmed.

use crate::harness::{
    Bystander, Mode, Request, code_of_end,
    differential::same_everywhere,
    frames::code,
    proxy::pooled,
    request::{c_strings, startup},
    tags,
};

/// Bytes without any meaning, always the same.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    (0..length).map(|_| next().to_be_bytes()[1]).collect()
}

#[test]
fn garbage_before_the_login_ends_the_connection() {
    let mut proxy = pooled(Mode::Transaction, 2);
    let mut bystander = Bystander::of(&proxy);
    let mut inputs: Vec<Vec<u8>> = (0..100)
        .map(|seed| noise(seed, 64 + 40 * seed as usize))
        .collect();
    inputs.push(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec());
    inputs.push(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec());
    inputs.push(vec![0; 4096]);
    inputs.push(vec![0xff; 4096]);
    for input in inputs {
        let mut client = proxy.connect("acme").open();
        client.try_send_bytes(&input).ok();
        client.half_close();
        let answer = client.raw_rest();
        assert!(
            answer.len() < 1000 && !answer.starts_with(b"R"),
            "{}",
            answer.escape_ascii()
        );
    }
    bystander.is_unharmed(&mut proxy);
}

#[test]
fn garbage_after_the_login_ends_the_connection() {
    for mode in [Mode::Session, Mode::Transaction] {
        let mut proxy = pooled(mode, 3);
        let mut bystander = Bystander::of(&proxy);
        for seed in 0..60 {
            let mut client = proxy.connect("acme").login();
            client.try_send_bytes(&noise(seed, 2000)).ok();
            client.half_close();
            client.raw_rest();
        }
        bystander.is_unharmed(&mut proxy);
    }
}

#[test]
fn a_length_that_cannot_be_is_a_protocol_violation() {
    for mode in [Mode::Session, Mode::Transaction] {
        let mut proxy = pooled(mode, 3);
        let mut bystander = Bystander::of(&proxy);
        for tag in b"QPBDECHSFdcfpX" {
            for length in [-1, i32::MIN, 0, 1, 3] {
                let mut client = proxy.connect("acme").login();
                let bytes = [&[*tag][..], &i32::to_be_bytes(length), b"rest"].concat();
                client.send_bytes(&bytes);
                let code = code_of_end(&mut client);
                assert_eq!(code, "08P01", "{} with length {length}", char::from(*tag));
            }
        }
        bystander.is_unharmed(&mut proxy);
    }
}

#[test]
fn a_message_of_two_gigabytes_is_not_waited_for() {
    // PostgreSQL allows a gigabyte for most messages and 10,000 bytes for those without content.
    for mode in [Mode::Session, Mode::Transaction] {
        let mut proxy = pooled(mode, 3);
        let mut bystander = Bystander::of(&proxy);
        let before = proxy.resident_bytes();
        for tag in b"QPBDECHSFp" {
            let mut client = proxy.connect("acme").login();
            client.send_bytes(&[&[*tag][..], &i32::MAX.to_be_bytes(), b"select 1"].concat());
            client.half_close();
            let code = code_of_end(&mut client);
            assert!(
                ["", "08P01", "54000"].contains(&code.as_str()),
                "{}: {code}",
                char::from(*tag)
            );
        }
        let grown = proxy.resident_bytes().saturating_sub(before);
        assert!(
            grown < 20 << 20,
            "{grown} bytes for messages that never came"
        );
        bystander.is_unharmed(&mut proxy);
    }
}

#[test]
fn a_truncated_message_is_the_end_of_its_sender_only() {
    for mode in [Mode::Session, Mode::Transaction] {
        let mut proxy = pooled(mode, 2);
        let mut bystander = Bystander::of(&proxy);
        let whole = Request::new()
            .parse("s", "select $1::int")
            .run_prepared("s", &["1"])
            .sync();
        let whole = whole.bytes();
        for length in 1..whole.len() {
            let mut client = proxy.connect("acme").login();
            client.send_bytes(&whole[..length]);
            client.half_close();
            client.raw_rest();
        }
        bystander.is_unharmed(&mut proxy);
    }
}

#[test]
fn an_unknown_message_type_is_a_protocol_violation() {
    for mode in [Mode::Session, Mode::Transaction] {
        let mut proxy = pooled(mode, 2);
        let mut bystander = Bystander::of(&proxy);
        for tag in [
            b'Z', b'T', b'R', b'!', b'q', b'0', 0, 0xff, b'p', b'v', b'G', b'W',
        ] {
            let mut client = proxy.connect("acme").login();
            client.send(&Request::new().message(tag, b"\0\0\0\0"));
            assert_eq!(
                code_of_end(&mut client),
                "08P01",
                "{}",
                char::from(tag).escape_debug()
            );
            // The same in the middle of a transaction and of a batch.
            let mut client = proxy.connect("acme").login();
            client.exec("begin");
            client.send(
                &Request::new()
                    .run("select 1", &[])
                    .message(tag, b"\0")
                    .sync(),
            );
            assert_eq!(
                code_of_end(&mut client),
                "08P01",
                "{}",
                char::from(tag).escape_debug()
            );
        }
        bystander.is_unharmed(&mut proxy);
    }
}

#[test]
fn messages_that_are_not_of_their_form_are_refused() {
    let parse = |types: u16, body: &[u8]| {
        [
            &c_strings(&["", "select 1"])[..],
            &types.to_be_bytes(),
            body,
        ]
        .concat()
    };
    let messages = [
        (b'Q', b"select 1".to_vec()),
        (b'Q', b"select 1\0more".to_vec()),
        (b'Q', b"select 1\0\0".to_vec()),
        (b'Q', b"".to_vec()),
        (b'P', b"".to_vec()),
        (b'P', b"name".to_vec()),
        (b'P', b"name\0select 1".to_vec()),
        (b'P', b"name\0select 1\0".to_vec()),
        (b'P', parse(3, b"\0\0\0\x17")),
        (b'P', parse(0, b"more")),
        (b'B', b"".to_vec()),
        (b'B', b"portal\0".to_vec()),
        (b'B', b"\0\0\0\0\0\x01".to_vec()),
        (b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xf0\0\0".to_vec()),
        (b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xffxx\0\0".to_vec()),
        (b'D', b"".to_vec()),
        (b'D', b"X\0".to_vec()),
        (b'D', b"Sname".to_vec()),
        (b'C', b"X\0".to_vec()),
        (b'C', b"S".to_vec()),
        (b'E', b"".to_vec()),
        (b'E', b"\0\0".to_vec()),
        (b'E', b"\0\0\0\0\0more".to_vec()),
        (b'S', b"content".to_vec()),
        (b'H', b"content".to_vec()),
        (b'F', b"\0\0".to_vec()),
    ];
    for mode in [Mode::Session, Mode::Transaction] {
        let mut proxy = pooled(mode, 2);
        let mut bystander = Bystander::of(&proxy);
        for (tag, body) in &messages {
            let mut client = proxy.connect("acme").login();
            client.send(
                &Request::new()
                    .parse("", "select 1")
                    .message(*tag, body)
                    .sync(),
            );
            let frames = client.until('E');
            client.send(&Request::new().terminate());
            client.rest();
            let code = code(&frames);
            let known = [
                "08P01", "22021", "42601", "42P02", "26000", "34000", "54000",
            ];
            let shown = format!("{}({}): {frames:?}", char::from(*tag), body.escape_ascii());
            assert!(known.contains(&code.as_str()), "{shown}");
        }
        bystander.is_unharmed(&mut proxy);
    }
}

#[test]
fn the_most_parameters_there_can_be_pass() {
    same_everywhere(|client| {
        let list: Vec<_> = (1..=65535)
            .map(|number| format!("(${number}::int)"))
            .collect();
        let sql = format!(
            "select sum(v), count(*) from (values {}) as t (v)",
            list.join(", ")
        );
        let parameters = vec!["1"; 65535];
        client.send(&Request::new().parse("many", &sql).flush());
        let mut frames = client.take(1);
        frames.extend(client.ask(&Request::new().describe_statement("many").sync()));
        frames.extend(client.ask(&Request::new().run_prepared("many", &parameters).sync()));
        frames.extend(client.ask(&Request::new().run_prepared("many", &parameters[1..]).sync()));
        frames
    });
}

#[test]
fn sql_that_is_not_utf_8_is_postgresqls_to_refuse() {
    same_everywhere(|client| {
        let bad = b"select '\xff\xfe\xc3'";
        let query = Request::new().message(b'Q', &[&bad[..], b"\0"].concat());
        let parse = Request::new()
            .message(b'P', &[b"bad\xff\0", &bad[..], b"\0\0\0"].concat())
            .sync();
        let value = Request::new()
            .parse("", "select $1::text")
            .bind_formats("", "", (&[], &[Some(b"\xff\xfe")], &[]))
            .execute("")
            .sync();
        let zero = Request::new()
            .parse("", "select $1::text")
            .bind_formats("", "", (&[], &[Some(b"a\0b")], &[]))
            .execute("")
            .sync();
        let mut frames = client.ask(&query);
        frames.extend(client.ask(&parse));
        frames.extend(client.ask(&value));
        frames.extend(client.ask(&zero));
        frames.extend(client.query("set client_encoding = 'LATIN1'"));
        frames.extend(client.ask(&query));
        frames
    });
}

#[test]
fn long_names_are_postgresqls_to_judge() {
    same_everywhere(|client| {
        let name = "n".repeat(5000);
        let mut frames = client.ask(&Request::new().parse(&name, "select 1").sync());
        frames.extend(client.ask(&Request::new().run_prepared(&name, &[]).sync()));
        frames.extend(
            client.ask(
                &Request::new()
                    .run_prepared(&format!("other {name}"), &[])
                    .sync(),
            ),
        );
        let odd = "'; drop table x; -- \u{e9}\n\"";
        frames.extend(
            client.ask(
                &Request::new()
                    .parse(odd, "select 2")
                    .describe_statement(odd)
                    .sync(),
            ),
        );
        frames.extend(
            client.ask(
                &Request::new()
                    .run_prepared(odd, &[])
                    .close_statement(odd)
                    .sync(),
            ),
        );
        frames.extend(client.ask(&Request::new().run_prepared(odd, &[]).sync()));
        frames
    });
}

#[test]
fn a_second_startup_packet_is_a_protocol_violation() {
    let proxy = pooled(Mode::Transaction, 1);
    let mut client = proxy.connect("acme").login();
    client.send_bytes(&startup(0x0003_0000, &[("user", "acme")]));
    assert_eq!(code_of_end(&mut client), "08P01");
}

#[test]
fn an_embedded_nul_in_a_startup_value_smuggles_nothing() {
    let proxy = pooled(Mode::Transaction, 1);
    let connect = proxy
        .connect("acme")
        .parameter("application_name", "x\0options\0-c work_mem=64kB");
    // On the wire this is just another pair: it is honoured as one, or refused.
    if let Ok(mut client) = connect.try_login() {
        assert_eq!(client.value("show application_name"), "x");
        assert_eq!(client.value("show work_mem"), "64kB");
    }
    let mut other = proxy.connect("acme").login();
    assert_eq!(other.value("show work_mem"), "4MB");
}

#[test]
fn terminate_ends_a_session_at_any_time() {
    for mode in [Mode::Session, Mode::Transaction] {
        let proxy = pooled(mode, 1);
        let starts = [
            Request::new(),
            Request::new().query("begin"),
            Request::new().run("select 1", &[]),
            Request::new().run("select 1/0", &[]),
            Request::new().parse("s", "select 1").flush(),
        ];
        for start in starts {
            let mut client = proxy.connect("acme").login();
            client.send(&start.terminate());
            let frames = client.rest();
            assert!(!tags(&frames).ends_with('R'));
            proxy.connect("acme").login().is_in_step();
        }
    }
}

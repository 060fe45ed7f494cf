//! To bring the protocol out of step, so that somebody else's bytes are taken for one's own.

use crate::{
    attack::{
        ALL, Act, Attack,
        Class::{Bytes, Read},
        ROWS, SCHEMA, TOGETHER,
    },
    harness::{
        Request,
        connect::V3_0,
        request::{cancel_request, gss_request, ssl_request, startup},
    },
    scene::Scene,
};

/// Why no bytes succeed against PostgreSQL itself.
const SOLID: &str =
    "PostgreSQL's own framing holds, and a naive set-up here has no proxy that frames";

fn read(scene: &Scene<'_>) -> String {
    scene.stage.fill("select * from {table}")
}

/// See the head of this file.
pub const ATTACKS: &[Attack] = &[
    Attack::new(
        "unknown_message",
        Bytes,
        ALL,
        Act::Bytes(|s| {
            Request::new()
                .message(b'\xff', b"x")
                .query(&read(s))
                .bytes()
                .to_vec()
        }),
    ),
    Attack::new(
        "length_too_small",
        Bytes,
        ALL,
        Act::Bytes(|s| {
            Request::new()
                .raw(b"Q\0\0\0\x03")
                .query(&read(s))
                .bytes()
                .to_vec()
        }),
    ),
    Attack::new(
        "length_negative",
        Bytes,
        ALL,
        Act::Bytes(|s| {
            Request::new()
                .raw(b"Q\xff\xff\xff\xff")
                .query(&read(s))
                .bytes()
                .to_vec()
        }),
    ),
    Attack::new(
        "length_huge",
        Bytes,
        ALL,
        Act::Own(|scene| {
            scene.attacker.send(b"Q\x7f\xff\xff\xffselect 1");
            let found = scene.victim_is_served();
            scene.come_again();
            found
        }),
    ),
    Attack::new(
        "length_of_parse_wrong",
        Bytes,
        ALL,
        Act::Bytes(|s| {
            // Says to be shorter than its strings, so that the rest looks like a Query.
            let inner = Request::new().query(&read(s));
            let mut bytes = b"P\0\0\0\x06\0s".to_vec();
            bytes.extend(inner.bytes());
            bytes.extend(Request::new().sync().bytes());
            bytes
        }),
    )
    .unproven(SOLID),
    Attack::new(
        "bind_with_too_many_parameters",
        Bytes,
        ALL,
        Act::Bytes(|_| {
            Request::new()
                .parse("", "select 1")
                .message(b'B', b"\0\0\0\0\xff\xff\0\0")
                .execute("")
                .sync()
                .bytes()
                .to_vec()
        }),
    )
    .unproven(SOLID),
    Attack::new(
        "query_without_end",
        Bytes,
        ALL,
        Act::Bytes(|_| {
            Request::new()
                .message(b'Q', b"select 1")
                .sync()
                .bytes()
                .to_vec()
        }),
    )
    .unproven(SOLID),
    Attack::new(
        "query_with_zero",
        Bytes,
        ALL,
        Act::Bytes(|s| {
            let text = format!("select 1\0{}\0", read(s));
            Request::new()
                .message(b'Q', text.as_bytes())
                .bytes()
                .to_vec()
        }),
    )
    .unproven(SOLID),
    Attack::new(
        "second_startup",
        Bytes,
        ALL,
        Act::Bytes(|s| s.stage.victim.packet()),
    ),
    Attack::new(
        "startup_in_query",
        Bytes,
        ALL,
        Act::Bytes(|s| {
            let packet = startup(
                V3_0,
                &[("user", "admin"), ("database", &s.stage.value("db"))],
            );
            Request::new()
                .query("select 1")
                .raw(&packet)
                .query(&read(s))
                .bytes()
                .to_vec()
        }),
    ),
    Attack::new(
        "password_after_login",
        Bytes,
        ALL,
        Act::Bytes(|s| {
            Request::new()
                .message(b'p', b"victim\0")
                .query(&read(s))
                .bytes()
                .to_vec()
        }),
    ),
    Attack::new(
        "tls_request_after_login",
        Bytes,
        ALL,
        Act::Bytes(|_| ssl_request()),
    ),
    Attack::new(
        "gss_request_after_login",
        Bytes,
        ALL,
        Act::Bytes(|_| gss_request()),
    ),
    Attack::new(
        "cancel_after_login",
        Bytes,
        ALL,
        Act::Bytes(|s| {
            let pid = s.stage.value("pid").parse().unwrap_or(0);
            cancel_request(pid, &s.attacker.cancel_key().1)
        }),
    ),
    Attack::new(
        "bytes_behind_tls_request",
        Bytes,
        ALL,
        Act::Own(|scene| {
            let packet = scene.stage.victim.packet();
            for request in [ssl_request(), gss_request()] {
                let bytes = [
                    request,
                    packet.clone(),
                    Request::new().query(&read(scene)).bytes().to_vec(),
                ]
                .concat();
                scene.knock(&bytes);
            }
            None
        }),
    )
    .unproven(SOLID),
    Attack::new(
        "query_before_login",
        Bytes,
        ALL,
        Act::Own(|scene| {
            let bytes = [
                scene.stage.victim.packet(),
                Request::new()
                    .query("select * from accounts")
                    .bytes()
                    .to_vec(),
            ]
            .concat();
            scene.knock(&bytes);
            scene.knock(Request::new().query(&read(scene)).bytes());
            None
        }),
    ),
    Attack::new(
        "startup_of_wrong_length",
        Bytes,
        ALL,
        Act::Own(|scene| {
            for length in [0_i32, 3, 7, -1, i32::MIN, i32::MAX, 9, 10_000] {
                let mut bytes = length.to_be_bytes().to_vec();
                bytes.extend(&scene.stage.victim.packet()[4..]);
                scene.knock(&bytes);
            }
            None
        }),
    )
    .unproven(SOLID),
    Attack::new(
        "startup_without_end",
        Bytes,
        ALL,
        Act::Own(|scene| {
            let mut packet = scene.stage.victim.packet();
            packet.pop();
            let length = i32::try_from(packet.len()).unwrap_or(0).to_be_bytes();
            packet[..4].copy_from_slice(&length);
            scene.knock(&packet);
            None
        }),
    )
    .unproven(SOLID),
    Attack::new(
        "protocol_of_old",
        Bytes,
        ALL,
        Act::Own(|scene| {
            for version in [0x0002_0000, 0x0003_ffff, 0x0004_0000, 80_877_105, 0] {
                scene.knock(&startup(version, &[("user", "admin")]));
            }
            None
        }),
    )
    .unproven(SOLID),
    Attack::new(
        "huge_names",
        Bytes,
        ALL,
        Act::Bytes(|_| {
            let name = "n".repeat(200_000);
            Request::new()
                .parse(&name, "select 1")
                .run_prepared(&name, &[])
                .describe_portal(&name)
                .close_statement(&name)
                .sync()
                .bytes()
                .to_vec()
        }),
    ),
    Attack::new(
        "many_unsynced",
        Bytes,
        ALL,
        Act::Bytes(|s| {
            let mut request = Request::new();
            for number in 0..300 {
                request = request.run(&format!("select {number}"), &[]);
            }
            request.run(&read(s), &[]).sync().bytes().to_vec()
        }),
    )
    .unproven(SOLID),
    Attack::new(
        "sync_flood",
        Bytes,
        ALL,
        Act::Own(|scene| {
            let mut request = Request::new();
            for _ in 0..5_000 {
                request = request.sync().flush();
            }
            scene.attacker.send(request.bytes());
            let found = scene.victim_is_served();
            let end = Request::new().query("select 'the end'");
            scene.attacker.send(end.bytes());
            scene
                .attacker
                .until(|frame| frame.body.windows(7).any(|part| part == b"the end"));
            scene.attacker.until(|frame| frame.tag == b'Z');
            found
        }),
    ),
    Attack::new(
        "copy_bytes_like_messages",
        Bytes,
        ALL,
        Act::Own(|scene| {
            let inner = Request::new().query(&read(scene)).sync().query("rollback");
            let request = Request::new()
                .query("copy accounts (id, secret) from stdin")
                .copy_data(inner.bytes());
            let request = request.then(&inner).copy_fail("no").query(&read(scene));
            scene.attacker.ask(request.bytes());
            scene.attacker.ask(Request::new().sync().bytes());
            None
        }),
    )
    .unproven(SOLID),
    Attack::new(
        "copy_messages_outside_copy",
        Bytes,
        ALL,
        Act::Bytes(|s| {
            Request::new()
                .copy_data(b"1\tx\n")
                .copy_done()
                .copy_fail("x")
                .query(&read(s))
                .bytes()
                .to_vec()
        }),
    )
    .unproven(SOLID),
    Attack::new(
        "row_bytes_like_messages",
        Bytes,
        ALL,
        Act::Own(|scene| {
            // A value that looks like the end of an answer and the beginning of another's.
            let value = "E'Z\\x00\\x00\\x00\\x05I'";
            let value = value.replace("\\x00", "\\x01");
            scene.say(&format!("select {value}, repeat('Z', 70000)"));
            let answer = scene.say("select 'in step'");
            (answer.value().as_deref() != Some("in step")).then(|| "out of step".into())
        }),
    )
    .unproven(SOLID),
    Attack::new(
        "batch_across_rollback",
        Bytes,
        ROWS,
        Act::Bytes(|_| {
            Request::new()
                .query("begin")
                .run("rollback", &[])
                .run("select * from accounts", &[])
                .sync()
                .query("rollback; select * from accounts; commit; select * from accounts")
                .bytes()
                .to_vec()
        }),
    )
    .unproven("the naive tenant is set for the session, which a rollback does not end"),
    Attack::new(
        "pipelined_behind_error",
        Bytes,
        TOGETHER,
        Act::Bytes(|s| {
            Request::new()
                .run("select 1 / 0", &[])
                .run(&read(s), &[])
                .sync()
                .run(&read(s), &[])
                .sync()
                .bytes()
                .to_vec()
        }),
    )
    .unproven("PostgreSQL itself skips what is behind an error, up to the next Sync"),
    Attack::new(
        "many_queries_at_once",
        Bytes,
        TOGETHER,
        Act::Own(|scene| {
            let mut request = Request::new();
            for _ in 0..50 {
                request = request
                    .query("select 1; select * from accounts")
                    .query("discard all")
                    .query("begin; rollback");
            }
            scene.attacker.ask(
                request
                    .query(&read(scene))
                    .query("select 'the end'")
                    .bytes(),
            );
            scene
                .attacker
                .until(|frame| frame.body.windows(7).any(|part| part == b"the end"));
            scene.attacker.until(|frame| frame.tag == b'Z');
            None
        }),
    )
    .unproven(SOLID),
    Attack::new(
        "gone_in_the_middle",
        Bytes,
        ALL,
        Act::Own(|scene| {
            let request = Request::new()
                .query("begin; update accounts set secret = secret; select pg_sleep(0.1)")
                .raw(b"Q\0\0\0\xff");
            scene.attacker.send(request.bytes());
            scene.come_again();
            None
        }),
    ),
    Attack::new(
        "function_call_set_config",
        Bytes,
        ROWS,
        Act::Bytes(|s| {
            // set_config(text, text, boolean), as fast-path calls.
            Request::new()
                .function_call(2078, &["app.tenant_id", &s.stage.value("tenant"), "f"])
                .function_call(
                    2078,
                    &["backtrace_functions", &s.stage.value("tenant"), "f"],
                )
                .query("select * from accounts")
                .query("select 'the end'")
                .bytes()
                .to_vec()
        }),
    ),
    Attack::new(
        "function_call_of_victim",
        Read,
        SCHEMA,
        Act::Bytes(|s| {
            let oid = s.stage.value("whisper_oid").parse().unwrap_or(0);
            Request::new().function_call(oid, &[]).bytes().to_vec()
        }),
    ),
    Attack::new(
        "function_call_large_object",
        Bytes,
        ALL,
        Act::Own(|scene| {
            let lo = scene.stage.value("lo");
            // lo_get(oid).
            scene
                .attacker
                .ask(Request::new().function_call(3458, &[&lo]).bytes());
            None
        }),
    ),
    Attack::new(
        "function_call_terminate",
        Bytes,
        ALL,
        Act::Bytes(|s| {
            let pid = s.stage.value("pid");
            Request::new()
                .function_call(2096, &[&pid, "5000"])
                .bytes()
                .to_vec()
        }),
    ),
    Attack::new(
        "function_call_query",
        Read,
        TOGETHER,
        Act::Bytes(|s| {
            // query_to_xml(text, boolean, boolean, text).
            Request::new()
                .function_call(2924, &[&read(s), "t", "f", ""])
                .bytes()
                .to_vec()
        }),
    ),
    Attack::new(
        "function_call_malformed",
        Bytes,
        ALL,
        Act::Bytes(|_| {
            Request::new()
                .message(b'F', b"\0\0\x08\x1e\xff\xff\0\0")
                .message(b'F', b"")
                .sync()
                .bytes()
                .to_vec()
        }),
    )
    .unproven(SOLID),
    Attack::new(
        "flush_and_go",
        Bytes,
        ALL,
        Act::Own(|scene| {
            scene
                .attacker
                .send(Request::new().run("select 1", &[]).flush().bytes());
            scene.attacker.until(|frame| frame.tag == b'C');
            scene.come_again();
            None
        }),
    )
    .unproven(SOLID),
    Attack::new(
        "invalid_text",
        Bytes,
        ALL,
        Act::Bytes(|_| {
            Request::new()
                .message(b'Q', b"select '\xff\xfe\xc0\x80'\0")
                .bytes()
                .to_vec()
        }),
    )
    .unproven(SOLID),
    Attack::new(
        "terminate_and_more",
        Bytes,
        ALL,
        Act::Bytes(|s| {
            Request::new()
                .terminate()
                .query(&read(s))
                .query("select * from accounts")
                .bytes()
                .to_vec()
        }),
    ),
];

//! FunctionCall, the old fast path: drivers use it for large objects.

use crate::harness::{Request, differential::same_everywhere, differential::same_in_session_mode};

/// `int4pl`, `textlen`, `pg_sleep`.
const INT4PL: u32 = 177;
const TEXTLEN: u32 = 1257;

#[test]
fn a_function_is_called() {
    same_everywhere(|client| {
        let new = Request::new;
        let requests = [
            new().function_call(INT4PL, &["40", "2"]),
            new().function_call(TEXTLEN, &["four"]),
            new().function_call(INT4PL, &["40"]),
            new().function_call(INT4PL, &["forty", "2"]),
            new().function_call(1, &[]),
        ];
        requests
            .iter()
            .flat_map(|request| client.ask(request))
            .collect()
    });
}

#[test]
fn calls_mix_with_queries_and_transactions() {
    same_everywhere(|client| {
        let mut frames = client.query("begin");
        frames.extend(client.ask(&Request::new().function_call(INT4PL, &["1", "2"])));
        frames.extend(client.ask(&Request::new().run("select 1/0", &[]).sync()));
        frames.extend(client.ask(&Request::new().function_call(INT4PL, &["1", "2"])));
        frames.extend(client.query("rollback"));
        frames
    });
}

#[test]
fn a_call_is_skipped_after_an_error_until_sync() {
    same_everywhere(|client| {
        let request = Request::new()
            .run("select 1/0", &[])
            .function_call(INT4PL, &["1", "2"])
            .sync();
        let mut frames = client.ask(&request);
        let several = Request::new()
            .function_call(INT4PL, &["1", "2"])
            .function_call(INT4PL, &["3", "4"]);
        client.send(&several);
        frames.extend(client.until_ready());
        frames.extend(client.until_ready());
        frames
    });
}

#[test]
fn a_large_object_is_written_and_read() {
    // lo_creat(int), lo_open, lowrite, loread by their fixed oids.
    same_in_session_mode(|client| {
        let mut frames = client.query("begin; select lo_create(4711)");
        frames.extend(client.ask(&Request::new().function_call(952, &["4711", "393216"])));
        frames.extend(client.ask(&Request::new().function_call(955, &["0", "some bytes"])));
        frames.extend(client.ask(&Request::new().function_call(956, &["0", "0", "0"])));
        frames.extend(client.ask(&Request::new().function_call(954, &["0", "4"])));
        frames.extend(client.query("select lo_unlink(4711); commit"));
        frames
    });
}

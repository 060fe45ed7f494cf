//! COPY, by both protocols, and how it fails.

use crate::harness::{
    Client, Frame, Mode, Place, Postgres, Proxy, Request, Tenant, differential::same_everywhere,
    eventually, frames::code, proxy::pooled, tags,
};

fn table(client: &mut Client) -> Vec<Frame> {
    client.query("create table t (i int, s text)")
}

fn start_copy(client: &mut Client) -> Vec<Frame> {
    client.send(&Request::new().query("copy t from stdin"));
    client.until('G')
}

#[test]
fn rows_are_copied_in_and_out() {
    same_everywhere(|client| {
        let mut frames = table(client);
        frames.extend(start_copy(client));
        let request = Request::new()
            .copy_data(b"1\tone\n2\t")
            .copy_data(b"two\n")
            .copy_data(b"3\t\\N\n");
        frames.extend(client.ask(&request.copy_done()));
        frames.extend(client.query("copy t to stdout"));
        frames.extend(client.query("copy (select generate_series(1, 5000)) to stdout with csv"));
        frames.extend(client.query("copy t to stdout with binary"));
        frames.extend(client.query("copy t to stdout; select 1; copy t to stdout"));
        frames
    });
}

#[test]
fn a_copy_in_and_other_statements_share_one_query() {
    same_everywhere(|client| {
        let mut frames = table(client);
        client.send(
            &Request::new()
                .query("select 1; copy t from stdin; select count(*) from t; copy t from stdin"),
        );
        frames.extend(client.until('G'));
        client.send(&Request::new().copy_data(b"1\ta\n").copy_done());
        frames.extend(client.until('G'));
        frames.extend(client.ask(&Request::new().copy_done()));
        frames
    });
}

#[test]
fn a_client_can_fail_a_copy() {
    same_everywhere(|client| {
        let mut frames = table(client);
        frames.extend(start_copy(client));
        frames.extend(client.ask(&Request::new().copy_data(b"1\tone\n").copy_fail("no more")));
        frames.extend(client.query("select count(*) from t"));
        frames.extend(client.query("begin"));
        frames.extend(start_copy(client));
        frames.extend(client.ask(&Request::new().copy_fail("never")));
        frames.extend(client.query("commit"));
        frames
    });
}

#[test]
fn data_after_an_error_in_copy_is_ignored() {
    same_everywhere(|client| {
        let mut frames = table(client);
        frames.extend(start_copy(client));
        client.send(&Request::new().copy_data(b"nonsense\n"));
        let mut request = Request::new();
        for _ in 0..200 {
            request = request.copy_data(&b"2\ttwo\n".repeat(100));
        }
        client.send(&request.copy_done());
        frames.extend(client.until_ready());
        frames.extend(client.query("select count(*) from t"));
        frames
    });
}

#[test]
fn flush_and_sync_during_a_copy_are_ignored() {
    same_everywhere(|client| {
        let mut frames = table(client);
        frames.extend(start_copy(client));
        let request = Request::new()
            .flush()
            .copy_data(b"1\tone\n")
            .sync()
            .copy_data(b"2\ttwo\n")
            .copy_done();
        frames.extend(client.ask(&request));
        frames.extend(client.query("select * from t"));
        frames
    });
}

#[test]
fn another_message_during_a_copy_ends_the_session_as_in_postgresql() {
    for mode in [Mode::Session, Mode::Transaction] {
        let proxy = pooled(mode, 1);
        let mut client = proxy.connect("acme").login();
        table(&mut client);
        start_copy(&mut client);
        client.send(&Request::new().copy_data(b"1\tone\n").query("select 1"));
        let frames = client.rest();
        assert_eq!(code(&frames), "08P01", "{frames:?}");
        nothing_stays(&proxy.place("acme"), &mut proxy.connect("acme").login());
    }
}

#[test]
fn copy_data_outside_a_copy_is_ignored() {
    same_everywhere(|client| {
        client.ask(
            &Request::new()
                .copy_data(b"x")
                .copy_done()
                .copy_fail("y")
                .query("select 1"),
        )
    });
}

#[test]
fn a_copy_by_the_extended_protocol_ends_with_the_sync_after_it() {
    same_everywhere(|client| {
        let mut frames = table(client);
        client.send(&Request::new().run("copy t from stdin", &[]).flush());
        frames.extend(client.until('G'));
        client.send(&Request::new().copy_data(b"1\tone\n").copy_done().sync());
        frames.extend(client.until_ready());
        frames.extend(client.ask(&Request::new().run("copy t to stdout", &[]).sync()));
        frames
    });
}

#[test]
fn a_sync_sent_before_the_copy_began_is_swallowed_by_it() {
    same_everywhere(|client| {
        let mut frames = table(client);
        // A driver that doesn't know the statement sends Sync at once; PostgreSQL reads it within
        // the copy, where it means nothing, and another must follow.
        client.send(&Request::new().run("copy t from stdin", &[]).sync());
        frames.extend(client.until('G'));
        client.send(&Request::new().copy_data(b"1\tone\n").copy_done().sync());
        frames.extend(client.until_ready());
        frames.extend(client.query("select * from t"));
        client.send(&Request::new().run("copy t from stdin", &[]).sync());
        frames.extend(client.until('G'));
        client.send(&Request::new().copy_fail("no").sync());
        frames.extend(client.until_ready());
        frames
    });
}

#[test]
fn a_copy_that_fails_before_it_starts_leaves_its_sync_in_force() {
    same_everywhere(|client| {
        let mut frames = client.ask(&Request::new().run("copy nowhere from stdin", &[]).sync());
        frames.extend(
            client.ask(
                &Request::new()
                    .run("copy (select 1/0) to stdout", &[])
                    .sync(),
            ),
        );
        frames.extend(client.query("copy nowhere from stdin"));
        frames
    });
}

#[test]
fn an_error_in_an_extended_copy_skips_to_the_next_sync() {
    same_everywhere(|client| {
        let mut frames = table(client);
        client.send(&Request::new().run("copy t from stdin", &[]).flush());
        frames.extend(client.until('G'));
        client.send(
            &Request::new()
                .copy_data(b"nonsense\n")
                .copy_data(b"1\tone\n")
                .copy_done()
                .sync(),
        );
        frames.extend(client.until_ready());
        frames
    });
}

#[test]
fn megabytes_are_copied_in_and_out() {
    for mode in [Mode::Session, Mode::Transaction] {
        let proxy = pooled(mode, 1);
        let mut client = proxy.connect("acme").login();
        client.exec("create unlogged table t (i int, s text)");
        start_copy(&mut client);
        let row = |row: u32| [&row.to_string(), "\t", &"y".repeat(100), "\n"].concat();
        let chunk: String = (0..1000).map(row).collect();
        let mut request = Request::new();
        for _ in 0..200 {
            request = request.copy_data(chunk.as_bytes());
        }
        let writer = client.send_aside(&request.copy_done());
        let answer = client.until_ready();
        writer.join().unwrap();
        assert_eq!(answer[0].strings(), ["COPY 200000"]);
        let out = client.query("copy t to stdout");
        let bytes: usize = out
            .iter()
            .filter(|frame| frame.tag == b'd')
            .map(|frame| frame.body.len())
            .sum();
        assert_eq!(bytes, chunk.len() * 200);
        client.is_in_step();
    }
}

/// After a client is gone in mid-copy, its server is free for the next and nothing was kept.
fn nothing_stays(place: &Place, next: &mut Client) {
    let mut admin = place.admin();
    assert_eq!(next.value("select count(*) from t"), "0");
    let role = place.role();
    let busy = format!(
        "select count(*) from pg_stat_activity where usename = '{role}' and state <> 'idle'"
    );
    eventually("no server of the tenant is busy", || {
        admin.value(&busy) == "0"
    });
}

#[test]
fn a_client_that_dies_in_mid_copy_in_leaves_nothing_behind() {
    for mode in [Mode::Session, Mode::Transaction] {
        let proxy = pooled(mode, 1);
        let mut client = proxy.connect("acme").login();
        table(&mut client);
        start_copy(&mut client);
        client.send(&Request::new().copy_data(b"1\tone\n"));
        client.reset();
        nothing_stays(&proxy.place("acme"), &mut proxy.connect("acme").login());
    }
}

#[test]
fn a_client_that_dies_within_a_copy_message_leaves_nothing_behind() {
    for mode in [Mode::Session, Mode::Transaction] {
        let proxy = pooled(mode, 1);
        let mut client = proxy.connect("acme").login();
        table(&mut client);
        start_copy(&mut client);
        let half = Request::new().copy_data(&b"x".repeat(100_000));
        client.send_bytes(&half.bytes()[..50_000]);
        client.reset();
        nothing_stays(&proxy.place("acme"), &mut proxy.connect("acme").login());
    }
}

#[test]
fn a_client_that_dies_in_mid_copy_out_leaves_nothing_behind() {
    for mode in [Mode::Session, Mode::Transaction] {
        let proxy = pooled(mode, 1);
        let mut client = proxy.connect("acme").login();
        table(&mut client);
        client
            .send(&Request::new().query(
                "copy (select repeat('z', 1000) from generate_series(1, 100000)) to stdout",
            ));
        assert_eq!(tags(&client.take(3)), "Hdd");
        client.reset();
        nothing_stays(&proxy.place("acme"), &mut proxy.connect("acme").login());
    }
}

#[test]
fn a_copy_can_be_cancelled() {
    let proxy = pooled(Mode::Transaction, 1);
    let mut client = proxy.connect("acme").login();
    client.send(&Request::new().query("copy (select generate_series(1, 1000000000)) to stdout"));
    client.take(3);
    proxy.connect("acme").cancel(&client);
    assert_eq!(code(&client.until_ready()), "57014");
    client.is_in_step();
}

#[test]
fn what_is_asked_of_the_proxy_within_a_copy_stops_nobody() {
    let place = Postgres::shared().place();
    let proxy = Proxy::of([Tenant::new("acme", &place), Tenant::new("other", &place)])
        .workers(1)
        .start();
    for sql in [
        "show pgusher.version",
        "execute nothing",
        "begin",
        "select 1",
    ] {
        let mut client = proxy.connect("acme").login();
        client.exec("create temp table t (n int)");
        client.send(&Request::new().query("copy t from stdin"));
        client.until('G');
        client.send(&Request::new().query(sql));
        assert_eq!(code(&client.until('E')), "08P01", "{sql}");
        proxy.connect("other").login().is_in_step();
    }
}

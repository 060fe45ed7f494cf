//! Many requests before the first answer.

use crate::harness::{
    Frame, Mode, Request, differential::same_everywhere, frames::firsts, proxy::pooled, tags,
};

#[test]
fn every_sync_has_its_ready_for_query() {
    same_everywhere(|client| {
        let mut request = Request::new().parse("n", "select $1::int");
        for number in 0..50 {
            request = request.run_prepared("n", &[&number.to_string()]).sync();
        }
        client.send(&request.sync().sync());
        (0..52).flat_map(|_| client.until_ready()).collect()
    });
}

#[test]
fn an_error_spoils_its_own_batch_only() {
    same_everywhere(|client| {
        let mut request = Request::new().parse("d", "select 12 / $1::int").sync();
        for number in [1, 0, 2, 0, 0, 3] {
            let number = number.to_string();
            request = request
                .run_prepared("d", &[&number])
                .run_prepared("d", &["4"])
                .sync();
        }
        client.send(&request);
        (0..7).flat_map(|_| client.until_ready()).collect()
    });
}

#[test]
fn a_batch_is_one_transaction() {
    same_everywhere(|client| {
        let mut frames = client.query("create table t (i int)");
        let new = Request::new;
        let lost = new()
            .run("insert into t values (1)", &[])
            .run("select 1/0", &[])
            .sync();
        let kept = new()
            .run("insert into t values (2)", &[])
            .run("insert into t values (3)", &[])
            .sync();
        client.send(
            &new()
                .then(&lost)
                .then(&kept)
                .run("select i from t order by i", &[])
                .sync(),
        );
        (0..3).for_each(|_| frames.extend(client.until_ready()));
        frames
    });
}

#[test]
fn a_transaction_spans_the_batches_between_begin_and_commit() {
    same_everywhere(|client| {
        let new = Request::new;
        let request = new()
            .run("begin", &[])
            .sync()
            .run("create table t (i int)", &[])
            .sync()
            .run("insert into t values ($1)", &["1"])
            .run("insert into t values ($1)", &["2"])
            .sync()
            .run("select 1/0", &[])
            .sync()
            .run("select 1", &[])
            .sync()
            .run("rollback", &[])
            .run("select to_regclass('t')", &[])
            .sync();
        client.send(&request);
        (0..6).flat_map(|_| client.until_ready()).collect()
    });
}

#[test]
fn flush_brings_answers_without_sync() {
    same_everywhere(|client| {
        let mut frames = Vec::new();
        client.send(&Request::new().parse("s", "select $1::int").flush());
        frames.extend(client.take(1));
        client.send(&Request::new().describe_statement("s").flush());
        frames.extend(client.take(2));
        client.send(&Request::new().bind("", "s", &["1"]).flush());
        frames.extend(client.take(1));
        client.send(&Request::new().execute("").flush());
        frames.extend(client.take(2));
        client.send(
            &Request::new()
                .run_prepared("s", &["2"])
                .run_prepared("s", &["3"])
                .flush(),
        );
        frames.extend(client.take(6));
        client.send(&Request::new().sync());
        frames.extend(client.until_ready());
        frames
    });
}

#[test]
fn an_error_comes_at_once_even_without_flush() {
    same_everywhere(|client| {
        client.send(&Request::new().run("select 1/0", &[]));
        let mut frames = client.until('E');
        // All of this is skipped, a Flush too.
        client.send(&Request::new().flush().run("select 2", &[]).flush().sync());
        frames.extend(client.until_ready());
        frames
    });
}

#[test]
fn simple_and_extended_queries_mix() {
    same_everywhere(|client| {
        let new = Request::new;
        let request = new()
            .query("select 'simple 1'")
            .run("select 'extended 1'", &[])
            .sync()
            .query("begin")
            .run("select 'extended 2'", &[])
            .query("select 'simple 2'; commit")
            .sync()
            .run("select 1/0", &[])
            .query("select 'skipped'")
            .sync()
            .query("select 'simple 3'");
        client.send(&request);
        // The query after the error is skipped like all else before Sync: seven answers.
        (0..7).flat_map(|_| client.until_ready()).collect()
    });
}

#[test]
fn a_long_pipeline_flows_both_ways_at_once() {
    const COUNT: usize = 20_000;
    for mode in [Mode::Session, Mode::Transaction] {
        let proxy = pooled(mode, 2);
        let mut client = proxy.connect("acme").login();
        let mut request = Request::new().parse("echo", "select $1::text");
        for number in 0..COUNT {
            let value = format!("{number} {}", "x".repeat(100));
            request = request.run_prepared("echo", &[&value]).sync();
        }
        let writer = client.send_aside(&request);
        for number in 0..COUNT {
            let frames = client.until_ready();
            let value = firsts(&frames)
                .pop()
                .unwrap_or_else(|| panic!("{frames:?}"));
            assert!(value.starts_with(&format!("{number} ")), "{value}");
        }
        writer.join().unwrap();
        client.is_in_step();
    }
}

#[test]
fn a_batch_of_many_executes_before_one_sync_has_one_ready_for_query() {
    let proxy = pooled(Mode::Transaction, 1);
    let mut client = proxy.connect("acme").login();
    let mut request = Request::new();
    for number in 0..3000 {
        let name = format!("s{}", number % 7);
        if number < 7 {
            request = request.parse(&name, &format!("select {number}"));
        }
        request = request.run_prepared(&name, &[]);
    }
    let writer = client.send_aside(&request.sync());
    let frames = client.until_ready();
    writer.join().unwrap();
    let rows = frames.iter().filter(|frame| frame.tag == b'D').count();
    let ready = |frame: &&Frame| frame.tag == b'Z';
    assert_eq!((rows, frames.iter().filter(ready).count()), (3000, 1));
    assert!(tags(&frames).starts_with('1'));
    client.is_in_step();
}

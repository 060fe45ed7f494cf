//! Many batches at once, and batches in pieces: the order and the answers stay.

use super::{Stage, plain_tags, shared};
use crate::harness::{
    Request,
    frames::{self, firsts},
};
use std::{thread, time::Duration};

#[test]
fn reads_in_a_pipeline_see_the_writes_before_them() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.client();
    client.exec("create table log (n int)");
    for round in 0..10 {
        stage.settled(&mut client);
        let mut request = Request::new();
        for n in 0..20 {
            request = request
                .run(
                    "insert into log values ($1)",
                    &[&(round * 20 + n).to_string()],
                )
                .sync()
                .run("select count(*) from log", &[])
                .sync();
        }
        client.send(&request);
        for n in 1..=20 {
            assert_eq!(plain_tags(&client.until_ready()), "12CZ");
            let frames = client.until_ready();
            assert_eq!(plain_tags(&frames), "12DCZ");
            assert_eq!(firsts(&frames), [(round * 20 + n).to_string()]);
        }
    }
    client.is_in_step();
}

#[test]
fn reads_in_a_pipeline_are_answered_in_order() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    stage.settled(&mut client);
    let mut request = Request::new();
    for n in 0..100 {
        request = if n % 10 == 9 {
            request.query(&format!("begin; select {n}; commit"))
        } else if n % 10 == 4 {
            request.query(&format!("select {n} / (select count(*) - 3 from items)"))
        } else if n % 2 == 0 {
            request.query(&format!("select {n}"))
        } else {
            request.run("select $1::int", &[&n.to_string()]).sync()
        };
    }
    client.send(&request);
    for n in 0..100 {
        let frames = client.until_ready();
        if n % 10 == 4 {
            assert_eq!(frames::code(&frames), "22012", "{n}");
        } else {
            assert_eq!(firsts(&frames), [n.to_string()]);
        }
    }
    client.is_in_step();
}

#[test]
fn a_batch_of_reads_and_writes_is_one_transaction() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    for id in 10..20 {
        stage.settled(&mut client);
        let batch = Request::new()
            .run("select count(*) from items", &[])
            .run("insert into items values ($1, 'new')", &[&id.to_string()])
            .run("select count(*) from items", &[])
            .sync();
        let frames = client.ask(&batch);
        assert_eq!(plain_tags(&frames), "12DC12C12DCZ", "{frames:?}");
        assert_eq!(
            firsts(&frames),
            [(id - 7).to_string(), (id - 6).to_string()]
        );
        let failed = Request::new()
            .run("select count(*) from items", &[])
            .run("insert into items values (500, 'undone')", &[])
            .run("select 1 / 0", &[])
            .sync();
        assert_eq!(frames::code(&client.ask(&failed)), "22012");
        assert_eq!(
            client.value("select count(*) from items where id = 500"),
            "0"
        );
    }
}

#[test]
fn a_batch_may_come_in_pieces() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    stage.settled(&mut client);
    let read = [
        Request::new().parse("", "select name from items where id = $1"),
        Request::new().describe_statement(""),
        Request::new().bind("", "", &["3"]).execute(""),
        Request::new().sync(),
    ];
    for _ in 0..3 {
        for piece in &read {
            client.send(piece);
            // So that they are segments of their own.
            thread::park_timeout(Duration::from_millis(15));
        }
        let frames = client.until_ready();
        assert_eq!(plain_tags(&frames), "1tT2DCZ");
        assert_eq!(firsts(&frames), ["three"]);
    }
    // Byte by byte.
    let whole = Request::new().run("select 'bytes'", &[]).sync();
    for byte in whole.bytes() {
        client.send_bytes(&[*byte]);
    }
    assert_eq!(firsts(&client.until_ready()), ["bytes"]);
    for byte in Request::new().query("select 'simple'").bytes() {
        client.send_bytes(&[*byte]);
    }
    assert_eq!(firsts(&client.until_ready()), ["simple"]);
    client.is_in_step();
}

#[test]
fn a_batch_may_be_flushed_piece_by_piece() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    stage.settled(&mut client);
    for id in 10..20 {
        let sql = "select count(*) from items where id > $1";
        let parse = Request::new().parse("", sql).describe_statement("").flush();
        client.send(&parse);
        assert_eq!(frames::code(&client.until('T')), "");
        let run = Request::new().bind("", "", &["0"]).execute("").flush();
        client.send(&run);
        let frames = client.until('C');
        assert_eq!(firsts(&frames), [(id - 7).to_string()]);
        // The batch goes on with a write: it is all one transaction.
        let write = Request::new()
            .parse("", "insert into items values ($1, 'new')")
            .bind("", "", &[&id.to_string()])
            .execute("")
            .flush();
        client.send(&write);
        assert_eq!(frames::code(&client.until('C')), "");
        assert_eq!(plain_tags(&client.ask(&Request::new().sync())), "Z");
        assert_eq!(
            client.value("select count(*) from items"),
            (id - 6).to_string()
        );
    }
}

#[test]
fn a_read_that_fails_in_a_batch_takes_the_rest_along() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    stage.settled(&mut client);
    for _ in 0..5 {
        let batch = Request::new()
            .run("select 1", &[])
            .run("select 1 / 0", &[])
            .run("select 2", &[])
            .sync()
            .run("select 3", &[])
            .sync();
        client.send(&batch);
        let frames = client.until_ready();
        assert_eq!(
            (firsts(&frames), frames::code(&frames)),
            (vec!["1".into()], "22012".into())
        );
        assert_eq!(firsts(&client.until_ready()), ["3"]);
    }
    // No Sync at all: Terminate ends it.
    let mut leaver = stage.client();
    leaver.send(&Request::new().run("select 1", &[]).terminate());
    leaver.rest();
    client.is_in_step();
}

#[test]
fn large_results_come_whole() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.client();
    client
        .exec("create table big as select i, repeat('x', 1000) t from generate_series(1, 20000) i");
    let sql = "select i, t from big order by i";
    let expected: Vec<_> = (1..=20000).map(|i| i.to_string()).collect();
    assert_eq!(stage.on_replica(&mut client, sql), expected);
    let request = Request::new().run(sql, &[]).sync();
    for _ in 0..3 {
        assert_eq!(firsts(&client.ask(&request)), expected);
    }
}

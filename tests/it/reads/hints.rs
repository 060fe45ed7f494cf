//! A session may say where it wants to be.

use super::{Stage, reads_in_recovery, shared};
use crate::harness::{
    Request, eventually,
    fleet::{PRIMARY, mark},
    frames,
};

#[test]
fn a_session_that_wants_the_primary_has_it() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut plain = stage.furnished();
    let mut client = stage.connect().options("-c pgusher.target=primary").login();
    for _ in 0..10 {
        stage.settled(&mut plain);
        stage.on_primary(&mut client, "select count(*) from items");
        assert!(!reads_in_recovery(&mut client, "begin read only"));
    }
    client.exec("insert into items values (4, 'four')");
    assert_eq!(client.value("select count(*) from items"), "4");
}

#[test]
fn a_session_that_wants_a_replica_has_it_and_cannot_write() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut plain = stage.furnished();
    stage.settled(&mut plain);
    let mut client = stage.connect().options("-c pgusher.target=replica").login();
    let sql = "select count(*) from items";
    assert_eq!(stage.on_replica(&mut client, sql), ["3"]);
    assert_eq!(
        client.fails("insert into items values (4, 'four')").code(),
        "25006"
    );
    let write = Request::new()
        .run("insert into items values (4, 'four')", &[])
        .sync();
    assert_eq!(frames::code(&client.ask(&write)), "25006");
    eventually("a transaction, too", || {
        reads_in_recovery(&mut client, "begin")
    });
    assert_eq!(client.value("select pg_is_in_recovery()"), "t");
    assert_eq!(plain.value(sql), "3");
    client.is_in_step();
}

#[test]
fn auto_is_what_is_done_anyway_and_other_words_are_refused() {
    let stage = Stage::over(shared(), |tenant| tenant);
    stage.furnished();
    let mut client = stage.connect().options("-c pgusher.target=auto").login();
    let sql = "select count(*) from items";
    assert_eq!(stage.on_replica(&mut client, sql), ["3"]);
    stage.on_primary(&mut client, "delete from items where id = 3");
    assert_eq!(client.value(sql), "2");
    let refusal = stage.connect().options("-c pgusher.target=moon").refused();
    assert_eq!(refusal.code(), "22023", "{refusal:?}");
}

#[test]
fn a_hint_goes_with_other_options() {
    let stage = Stage::over(shared(), |tenant| tenant);
    stage.furnished();
    let options = "-c datestyle=German -c pgusher.target=replica -c extra_float_digits=0";
    let mut client = stage.connect().options(options).login();
    let date = "select (date '2024-02-01')::text";
    assert_eq!(stage.on_replica(&mut client, date), ["01.02.2024"]);
    let (mark, since) = (mark(), stage.fleet.now());
    for _ in 0..20 {
        assert_eq!(client.value(&format!("{date} {mark}")), "01.02.2024");
    }
    assert!(!stage.fleet.seen(&since, &mark).contains(&PRIMARY));
}

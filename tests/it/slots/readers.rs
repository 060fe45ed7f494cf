//! Keys that only read: nothing is written, and nobody else is stopped.

use super::{Rows, Stage, ids, token};

#[test]
fn a_key_that_only_reads_locks_no_row_of_anothers() {
    let ids = ids(2);
    let stage = Stage::of(&ids, 3, |_| ());
    for id in &ids {
        let insert = format!("insert into accounts values (1, 'of {id}'), (2, 'more')");
        stage.client(id).exec(&insert);
    }
    let mut reader = stage.reader(&ids[0]).login();
    for strength in ["update", "no key update", "share", "key share"] {
        let lock = format!("select id from accounts for {strength}");
        assert_eq!(reader.fails(&lock).code(), "25006", "{strength}");
        // Where it says that it writes it locks rows of its own tenant, at most.
        reader.exec("begin read write");
        let locked = reader.values(&lock);
        assert!(
            locked.is_empty() || locked == ["1", "2"],
            "{strength}: {locked:?}"
        );
        let mut other = stage.client(&ids[1]);
        other.exec("set lock_timeout = '2s'");
        other.exec("update accounts set secret = 'changed'");
        other.exec("delete from accounts where id = 2");
        other.exec("insert into accounts values (2, 'again')");
        reader.exec("rollback");
    }
    let all = format!(
        "select string_agg(secret, ',' order by id) from data.accounts where tenant_id = '{}'",
        token(&ids[0])
    );
    let expected = format!("of {},more", ids[0]);
    assert_eq!(Rows::shared().admin().value(&all), expected);
}

#[test]
fn no_tenant_locks_what_others_use() {
    let ids = ids(2);
    let stage = Stage::of(&ids, 3, |_| ());
    for mut client in [stage.client(&ids[0]), stage.reader(&ids[0]).login()] {
        for what in ["accounts", "app.accounts", "data.accounts"] {
            for mode in [
                "row share",
                "row exclusive",
                "share update exclusive",
                "share",
                "share row exclusive",
                "exclusive",
                "access exclusive",
            ] {
                let lock = format!("begin read write; lock table {what} in {mode} mode");
                let code = client.fails(&lock).code().to_owned();
                assert_eq!(code, "42501", "{what} in {mode}");
                client.exec("rollback");
            }
        }
        // What every reading statement takes: no statement of another waits for it.
        client.query("begin; lock table accounts in access share mode");
        let mut other = stage.client(&ids[1]);
        other.exec("set lock_timeout = '2s'");
        other.exec("insert into accounts values (5, 'x'); update accounts set secret = 'y'; delete from accounts where id = 5");
        client.query("rollback");
    }
}

#[test]
fn a_key_that_only_reads_takes_no_number() {
    let rows = Rows::start();
    let mut admin = rows.admin();
    admin.exec(include_str!(
        "../../../src/provisioning/sql/protect_counter.sql"
    ));
    admin.exec(
        "create sequence data.everybodys; alter sequence data.everybodys owner to pgusher_data",
    );
    let ids = ids(1);
    let stage = Stage::on(&rows, &ids, 2, |_| ());
    let mut writer = stage.client(&ids[0]);
    assert_eq!(writer.value("select ctl.next_number('orders')"), "1");
    let mut reader = stage.reader(&ids[0]).login();
    for (sql, codes) in [
        ("select ctl.next_number('orders')", ["25006", "42501"]),
        ("select nextval('data.everybodys')", ["42501", "25006"]),
        ("select setval('data.everybodys', 9)", ["42501", "25006"]),
    ] {
        for begin in ["begin", "begin read write"] {
            reader.exec(begin);
            let code = reader.fails(sql).code().to_owned();
            assert!(codes.contains(&code.as_str()), "{begin}; {sql}: {code}");
            reader.exec("rollback");
        }
    }
    assert_eq!(writer.value("select ctl.next_number('orders')"), "2");
    assert_eq!(admin.value("select is_called from data.everybodys"), "f");
}

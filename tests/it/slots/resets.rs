//! Drivers and poolers take back all settings of a connection that they keep. The tenant of a slot is
//! one of them, and is there again for what comes next.

use super::{Rows, Stage, ids, token};
use crate::harness::{
    Client, Request,
    frames::{code, error, firsts},
};
use pgusher::tenant::PoolMode;

const MODES: [PoolMode; 2] = [PoolMode::Transaction, PoolMode::Session];

/// What is sent, each as one Query, when a connection goes back to a driver's pool or comes from it.
const RESETS: [&str; 8] = [
    // asyncpg, `Connection.reset`; where a transaction is open.
    "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;",
    "ROLLBACK;\nSELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;",
    // Npgsql, ahead of the first command, without and with prepared statements.
    "DISCARD ALL",
    "SET SESSION AUTHORIZATION DEFAULT;RESET ALL;CLOSE ALL;UNLISTEN *;SELECT pg_advisory_unlock_all();\
     DISCARD SEQUENCES;DISCARD TEMP",
    // ActiveRecord, SQLAlchemy's recipe, and by hand.
    "RESET ALL",
    "reset all; ",
    "/* pool */ Reset All",
    "do $$ begin execute 'reset all'; end $$",
];

/// Tenants with a row each.
fn stage(mode: PoolMode) -> (Stage, Vec<String>) {
    let ids = ids(2);
    let stage = Stage::of(&ids, 1, |tenant| tenant.pool_mode = mode);
    for id in &ids {
        let mut client = stage.client(id);
        client.exec(&format!("insert into accounts values (1, 'of {id}')"));
        drop(client);
        stage.is_idle(1);
    }
    (stage, ids)
}

fn select(request: Request) -> Request {
    request
        .run("select secret from accounts where id = $1::int", &["1"])
        .sync()
}

/// The next answer, which must be the tenant's row.
fn is_own(client: &mut Client, id: &str, what: &str) {
    let frames = client.until_ready();
    assert_eq!(error(&frames), None, "{what}");
    assert_eq!(firsts(&frames), [format!("of {id}")], "{what}");
}

#[test]
fn what_is_asked_behind_a_reset_finds_its_tenant() {
    for mode in MODES {
        let (stage, ids) = stage(mode);
        for id in &ids {
            let mut client = stage.client(id);
            for reset in RESETS {
                let what = &format!("{mode}: {reset}");
                assert_eq!(error(&client.query(reset)), None, "{what}");
                client.send(&select(Request::new()));
                is_own(&mut client, id, what);
                assert_eq!(client.value("select ctl.tenant()"), token(id), "{what}");
            }
            drop(client);
            stage.is_idle(1);
        }
    }
}

#[test]
fn what_is_sent_along_with_a_reset_finds_its_tenant() {
    for mode in MODES {
        let (stage, ids) = stage(mode);
        let id = &ids[0];
        let mut client = stage.client(id);
        for reset in RESETS {
            let what = &format!("{mode}: {reset}");
            // As Npgsql does: in the same write.
            client.send(&select(Request::new().query(reset)));
            assert_eq!(error(&client.until_ready()), None, "{what}");
            is_own(&mut client, id, what);
            let query = "select secret from accounts";
            let twice = Request::new().query(reset).query(query);
            client.send(&twice.query(reset).query(query));
            for _ in 0..2 {
                assert_eq!(error(&client.until_ready()), None, "{what}");
                is_own(&mut client, id, what);
            }
        }
        for reset in ["reset all", "discard all"] {
            let what = &format!("{mode}, extended: {reset}");
            client.send(&select(Request::new().run(reset, &[]).sync()));
            assert_eq!(error(&client.until_ready()), None, "{what}");
            is_own(&mut client, id, what);
        }
        drop(client);
        stage.is_idle(1);
        let mut other = stage.client(&ids[1]);
        assert_eq!(
            other.values("select secret from accounts"),
            [format!("of {}", ids[1])]
        );
    }
}

#[test]
fn a_reset_within_a_transaction_leaves_it_its_tenant() {
    for mode in MODES {
        let (stage, ids) = stage(mode);
        let id = &ids[0];
        for end in ["commit", "rollback"] {
            let mut client = stage.client(id);
            client.exec("begin");
            client.exec("reset all");
            client.send(&select(Request::new()));
            is_own(&mut client, id, end);
            client.exec("savepoint a; reset all");
            client.exec("insert into accounts values (2, 'more')");
            client.exec("rollback to a");
            client.send(&select(Request::new()));
            is_own(&mut client, id, end);
            client.exec(end);
            // The whole of it in one write.
            let sent = Request::new().query("begin").query("reset all");
            client.send(&select(sent).query(end));
            for _ in 0..2 {
                assert_eq!(error(&client.until_ready()), None, "{mode}, {end}");
            }
            is_own(&mut client, id, end);
            assert_eq!(error(&client.until_ready()), None, "{mode}, {end}");
            client.send(&select(Request::new()));
            is_own(&mut client, id, end);
            drop(client);
            stage.is_idle(1);
        }
    }
}

#[test]
fn what_stands_behind_a_reset_in_its_own_query_is_refused_and_does_nothing() {
    for mode in MODES {
        let (stage, ids) = stage(mode);
        let id = &ids[0];
        let mut client = stage.client(id);
        for sql in [
            "reset all; select secret from accounts",
            "reset all; insert into accounts values (7, 'nobody''s')",
            "do $$ begin execute 'reset all'; end $$; update accounts set secret = 'nobody''s'",
            "begin; reset all; delete from accounts",
        ] {
            assert_eq!(code(&client.query(sql)), "PU002", "{mode}: {sql}");
            client.query("rollback");
            assert_eq!(
                client.values("select secret from accounts"),
                [format!("of {id}")],
                "{mode}: {sql}"
            );
        }
        let strays = "select count(*) from data.accounts where secret like 'nobody%'";
        assert_eq!(Rows::shared().admin().value(strays), "0");
    }
}

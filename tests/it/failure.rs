//! What a client sees when something else dies, and what stays behind when the client does.

use crate::harness::{
    Client, Mode, Place, Postgres, Proxy, Request, Tenant, eventually, eventually_some,
    frames::{code, error, firsts},
    postgres::signal,
    proxy::{one_tenant, pooled},
    tags,
};
use std::{fs, path::Path, time::Duration};

const MODES: [Mode; 2] = [Mode::Session, Mode::Transaction];

/// SQLSTATEs that say: the server is gone.
fn says_gone(code: &str) -> bool {
    code.starts_with("57P0") || code.starts_with("08")
}

fn running(place: &Place) -> String {
    let role = place.role();
    format!("select count(*) from pg_stat_activity where usename = '{role}' and state <> 'idle'")
}

fn pid_of_sleeper(place: &Place) -> String {
    let mut admin = place.admin();
    let sql = format!(
        "select pid from pg_stat_activity where usename = '{}' and wait_event = 'PgSleep'",
        place.role()
    );
    eventually_some("the query runs", || admin.values(&sql).pop())
}

#[test]
fn a_terminated_server_is_told_and_replaced() {
    for mode in MODES {
        let proxy = pooled(mode, 1);
        let place = proxy.place("acme");
        let mut client = proxy.connect("acme").login();
        client.send(&Request::new().query("select pg_sleep(30)"));
        let pid = pid_of_sleeper(&place);
        place
            .admin()
            .exec(&format!("select pg_terminate_backend({pid})"));
        assert_eq!(code(&client.until('E')), "57P01");
        let mut next = proxy.connect("acme").login();
        assert_ne!(next.server_pid(), pid);
    }
}

#[test]
fn a_server_terminated_while_idle_is_not_lent_again() {
    let proxy = pooled(Mode::Transaction, 2);
    let place = proxy.place("acme");
    let mut client = proxy.connect("acme").login();
    let pid = client.server_pid();
    let mut admin = place.admin();
    admin.exec(&format!("select pg_terminate_backend({pid}, 5000)"));
    eventually("the server is gone", || {
        !place.server_pids(&mut admin).contains(&pid)
    });
    assert_ne!(client.server_pid(), pid);
    client.is_in_step();
}

#[test]
fn a_server_terminated_in_a_transaction_ends_the_transaction_with_an_error() {
    for mode in MODES {
        let proxy = pooled(mode, 1);
        let place = proxy.place("acme");
        let mut client = proxy.connect("acme").login();
        client.exec("create table t (i int)");
        client.exec("begin; insert into t values (1)");
        let pid = client.server_pid();
        place
            .admin()
            .exec(&format!("select pg_terminate_backend({pid}, 5000)"));
        client
            .try_send_bytes(Request::new().query("commit").bytes())
            .ok();
        let frames = client.until('E');
        let code = code(&frames);
        assert!(says_gone(&code), "{frames:?}");
        assert_eq!(
            proxy
                .connect("acme")
                .login()
                .value("select count(*) from t"),
            "0"
        );
    }
}

#[test]
fn a_killed_backend_ends_in_an_error_and_the_next_client_is_served() {
    let postgres = Postgres::start();
    for mode in MODES {
        let place = postgres.place();
        let proxy = Proxy::of([Tenant::new("acme", &place).mode(mode).pool_size(2)]).start();
        let mut client = proxy.connect("acme").login();
        let mut other = proxy.connect("acme").login();
        other.exec("select 1");
        client.send(&Request::new().query("select pg_sleep(30)"));
        signal("KILL", &pid_of_sleeper(&place));
        let error = error(&client.until('E')).unwrap();
        assert!(says_gone(error.code()), "{error:?}");
        // PostgreSQL restarts all its processes after such a death.
        eventually("the next client is served", || {
            proxy.connect("acme").try_login().is_ok_and(|mut client| {
                client
                    .try_send_bytes(Request::new().query("select 1").bytes())
                    .is_ok()
                    && client.next_or_end().is_some_and(|frame| frame.tag == b'T')
            })
        });
    }
}

#[test]
fn a_backend_killed_within_a_big_answer_breaks_it_off() {
    let postgres = Postgres::start();
    let place = postgres.place();
    let proxy = Proxy::of([Tenant::new("acme", &place).pool_size(1)]).start();
    let mut client = proxy.connect("acme").login();
    let pid = client.server_pid();
    client.send(&Request::new().query("select repeat('x', 100000000)"));
    assert_eq!(client.next().kind(), 'T');
    signal("KILL", &pid);
    // A row that was cut off can't be followed by an error: the end must be the end.
    let rest = client.raw_rest();
    assert!(rest.len() < 110_000_000);
    drop(client);
    eventually("PostgreSQL is back and serves", || {
        proxy.connect("acme").try_login().is_ok_and(|mut client| {
            client
                .try_send_bytes(Request::new().query("select 1").bytes())
                .is_ok()
                && client.next_or_end().is_some_and(|frame| frame.tag == b'T')
        })
    });
}

#[test]
fn without_postgresql_there_is_a_clear_error_and_afterwards_service() {
    let mut postgres = Postgres::start();
    let place = postgres.place();
    let proxy = Proxy::of([Tenant::new("acme", &place)
        .pool_size(2)
        .set("query_wait_timeout", "2s")])
    .start();
    let mut client = proxy.connect("acme").login();
    client.exec("select 1");
    postgres.kill();
    let refused = match proxy.connect("acme").try_login() {
        Err(frames) => error(&frames),
        Ok(mut client) => {
            client.send(&Request::new().query("select 1"));
            error(&client.until('E'))
        }
    };
    let refused = refused.expect("an error");
    assert!(
        says_gone(refused.code()) || refused.code() == "53300",
        "{refused:?}"
    );
    client
        .try_send_bytes(Request::new().query("select 1").bytes())
        .ok();
    let rest: Vec<_> =
        std::iter::from_fn(|| client.next_or_end().filter(|frame| frame.tag != b'Z')).collect();
    assert!(
        error(&rest).is_some_and(|error| says_gone(error.code()) || error.code() == "53300"),
        "{rest:?}"
    );
    postgres.run();
    eventually("clients are served again", || {
        proxy
            .connect("acme")
            .try_login()
            .is_ok_and(|mut client| code(&client.query("select 1")).is_empty())
    });
}

#[test]
fn a_tenant_whose_postgresql_is_down_does_not_harm_others() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let place = Postgres::shared().place();
    let proxy = Proxy::of([
        Tenant::new("acme", &place),
        Tenant::new("down", &place)
            .set("cluster", "down")
            .set("query_wait_timeout", "1s"),
    ])
    .another_cluster("down", &format!("postgres://{nobody}"))
    .start();
    let mut client = proxy.connect("acme").login();
    let refused = match proxy.connect("down").try_login() {
        Err(frames) => error(&frames),
        Ok(mut client) => {
            client.send(&Request::new().query("select 1"));
            error(&client.until('E'))
        }
    };
    let refused = refused.expect("an error");
    assert!(
        says_gone(refused.code()) || refused.code() == "53300",
        "{refused:?}"
    );
    client.is_in_step();
    proxy.connect("acme").login().is_in_step();
}

/// After a client is gone: its work is undone, its query is over, its server serves the next.
fn assert_undone(proxy: &Proxy) {
    let place = proxy.place("acme");
    let mut admin = place.admin();
    let mut next = proxy.connect("acme").login();
    assert_eq!(next.value("select count(*) from t"), "0");
    let sql = running(&place);
    eventually("nothing of it runs on", || admin.value(&sql) == "0");
}

type Leave = fn(Client);

const WAYS_TO_LEAVE: [(&str, Leave); 4] = [
    ("terminate", |mut client| {
        client.send(&Request::new().terminate());
    }),
    ("reset", Client::reset),
    ("close", drop),
    ("half-close", |client| {
        client.half_close();
        // Whether it is told something or not, its connection ends.
        let mut client = client;
        client.raw_rest();
    }),
];

#[test]
fn a_client_gone_in_mid_transaction_leaves_nothing_behind() {
    for mode in MODES {
        for (_, leave) in WAYS_TO_LEAVE {
            let proxy = pooled(mode, 1);
            let mut client = proxy.connect("acme").login();
            client.exec("create table t (i int)");
            client.exec("begin; insert into t values (1); lock table t");
            leave(client);
            assert_undone(&proxy);
        }
    }
}

#[test]
fn a_client_gone_in_a_failed_transaction_leaves_nothing_behind() {
    for mode in MODES {
        let proxy = pooled(mode, 1);
        let mut client = proxy.connect("acme").login();
        client.exec("create table t (i int)");
        client.exec("begin; insert into t values (1)");
        client.fails("select 1/0");
        client.reset();
        assert_undone(&proxy);
    }
}

#[test]
fn a_client_gone_in_mid_query_has_its_query_cancelled() {
    for mode in MODES {
        for (way, leave) in WAYS_TO_LEAVE {
            if way == "half-close" {
                continue;
            }
            let proxy = pooled(mode, 1);
            let mut client = proxy.connect("acme").login();
            client.exec("create table t (i int)");
            client.exec("begin; insert into t values (1)");
            client.send(&Request::new().query("select pg_sleep(60)"));
            pid_of_sleeper(&proxy.place("acme"));
            leave(client);
            assert_undone(&proxy);
        }
    }
}

#[test]
fn a_reset_of_a_waiting_client_is_noticed_before_its_query_ends() {
    for mode in MODES {
        let proxy = pooled(mode, 1);
        let mut client = proxy.connect("acme").login();
        client.send(&Request::new().query("select pg_sleep(60)"));
        pid_of_sleeper(&proxy.place("acme"));
        client.reset();
        // The only server is free again long before the minute is over.
        proxy.connect("acme").login().exec("select 1");
    }
}

#[test]
fn a_client_gone_within_a_message_leaves_nothing_behind() {
    for mode in MODES {
        let proxy = pooled(mode, 1);
        let mut client = proxy.connect("acme").login();
        client.exec("create table t (i int)");
        let insert = Request::new().query(&format!(
            "insert into t values (1) /* {} */",
            "x".repeat(300_000)
        ));
        client.send_bytes(&insert.bytes()[..200_000]);
        client.reset();
        assert_undone(&proxy);
    }
}

#[test]
fn a_client_gone_while_it_waits_leaves_the_queue() {
    let proxy = pooled(Mode::Transaction, 1);
    let mut holder = proxy.connect("acme").login();
    holder.exec("create table t (i int)");
    holder.exec("begin");
    for _ in 0..3 {
        let mut waiter = proxy.connect("acme").login();
        waiter.send(&Request::new().query("insert into t values (1)"));
        waiter.reset();
    }
    let mut last = proxy.connect("acme").login();
    last.send(&Request::new().query("select 'served'"));
    holder.exec("commit");
    assert_eq!(firsts(&last.until_ready()), ["served"]);
    holder.is_in_step();
}

#[test]
fn a_client_gone_between_parse_and_sync_leaves_nothing_behind() {
    for mode in MODES {
        let proxy = pooled(mode, 1);
        let mut client = proxy.connect("acme").login();
        client.exec("create table t (i int)");
        client.send(&Request::new().run("insert into t values (1)", &[]).flush());
        assert_eq!(tags(&client.take(3)), "12C");
        client.reset();
        assert_undone(&proxy);
    }
}

#[test]
fn a_client_that_says_farewell_behind_its_question_gets_the_answer() {
    for mode in MODES {
        let proxy = pooled(mode, 1);
        for connect in [proxy.place("acme").direct(), proxy.connect("acme")] {
            let mut client = connect.login();
            let request = Request::new().query("select 'asked before', pg_sleep(0.2)");
            client.send(&request.terminate());
            assert_eq!(firsts(&client.rest()), ["asked before"], "{mode:?}");
        }
    }
}

#[test]
fn a_farewell_is_heard_however_close_it_follows_an_error() {
    for mode in MODES {
        let proxy = pooled(mode, 1);
        let simple = Request::new().query("selec").sync();
        let parse = Request::new().parse("", "selec").sync();
        for (name, request) in [("simple", simple), ("parse", parse)] {
            for round in 0..60 {
                let connect = proxy.connect("acme");
                let mut client = connect.login().patience(Duration::from_secs(3));
                client.send(&request);
                client.until('E');
                client.send(&Request::new().terminate());
                let has_ended = client.ends();
                assert!(has_ended, "{mode:?}, {name}, round {round}");
            }
        }
    }
}

#[test]
fn a_half_closed_client_still_gets_its_answer() {
    for mode in MODES {
        let proxy = pooled(mode, 1);
        for connect in [proxy.place("acme").direct(), proxy.connect("acme")] {
            let mut client = connect.login();
            client.send(&Request::new().query("select 'asked before', pg_sleep(0.2)"));
            client.half_close();
            assert_eq!(firsts(&client.rest()), ["asked before"], "{mode:?}");
        }
    }
}

#[test]
fn many_clients_that_die_leave_no_descriptor_behind() {
    let proxy = one_tenant(|tenant| tenant.pool_size(2));
    let descriptors = || {
        fs::read_dir(Path::new("/proc").join(proxy.pid().to_string()).join("fd"))
            .unwrap()
            .count()
    };
    proxy.connect("acme").login().exec("select 1");
    let before = descriptors();
    for round in 0..60 {
        let mut client = proxy.connect("acme").login();
        match round % 3 {
            0 => client.exec("begin"),
            1 => client.query("select 1/0"),
            _ => Vec::new(),
        };
        client.reset();
    }
    proxy.connect("acme").login().is_in_step();
    eventually("their descriptors are closed", || {
        descriptors() <= before + 4
    });
}

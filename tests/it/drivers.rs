//! Drivers and PostgreSQL's own programs, as users have them.

use crate::harness::{
    Mode, Proxy,
    programs::{program, psql, run},
    proxy::pooled,
    proxy_file::KEY,
};
use std::{fs, time::Duration};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

const MODES: [Mode; 2] = [Mode::Session, Mode::Transaction];

/// Runs what a test does with a driver, for no longer than a test waits.
fn with_driver<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        timeout(Duration::from_secs(20), test)
            .await
            .expect("the driver gets its answers");
    });
}

async fn connect(proxy: &Proxy) -> Client {
    let (client, connection) = tokio_postgres::connect(&proxy.url("acme"), NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

#[test]
fn tokio_postgres_runs_statements_and_transactions() {
    for mode in MODES {
        let proxy = pooled(mode, 2);
        with_driver(async {
            let mut client = connect(&proxy).await;
            client
                .batch_execute("create table t (id int primary key, name text)")
                .await
                .unwrap();
            let insert = client
                .prepare("insert into t values ($1, $2)")
                .await
                .unwrap();
            for id in 0..10 {
                let name = format!("name {id}");
                assert_eq!(client.execute(&insert, &[&id, &name]).await.unwrap(), 1);
            }
            let transaction = client.transaction().await.unwrap();
            let row = transaction
                .query_one("select count(*), max(name) from t", &[])
                .await
                .unwrap();
            assert_eq!(
                (row.get::<_, i64>(0), row.get::<_, &str>(1)),
                (10, "name 9")
            );
            transaction.execute("delete from t", &[]).await.unwrap();
            transaction.rollback().await.unwrap();
            let rows = client
                .query("select id from t where id >= $1 order by id", &[&5])
                .await
                .unwrap();
            let ids: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
            assert_eq!(ids, [5, 6, 7, 8, 9]);
            let failed = client.execute(&insert, &[&1, &"again"]).await.unwrap_err();
            assert_eq!(failed.code().unwrap().code(), "23505");
        });
    }
}

#[test]
fn tokio_postgres_pipelines_on_one_connection() {
    for mode in MODES {
        let proxy = pooled(mode, 2);
        with_driver(async {
            let client = connect(&proxy).await;
            let statement = client.prepare("select $1::int * 2").await.unwrap();
            let asks = (0..200).map(|number| {
                let (client, statement) = (&client, &statement);
                async move {
                    let row = client.query_one(statement, &[&number]).await.unwrap();
                    assert_eq!(row.get::<_, i32>(0), number * 2);
                }
            });
            // All are polled once before the first answer is awaited: all are in flight.
            let mut asks: Vec<_> = asks.map(Box::pin).collect();
            for ask in &mut asks {
                std::future::poll_fn(|context| {
                    let first = ask.as_mut().poll(context);
                    assert!(first.is_pending());
                    std::task::Poll::Ready(())
                })
                .await;
            }
            for ask in asks {
                ask.await;
            }
        });
    }
}

#[test]
fn tokio_postgres_cancels_and_goes_on() {
    let proxy = pooled(Mode::Transaction, 1);
    with_driver(async {
        let client = connect(&proxy).await;
        let token = client.cancel_token();
        let sleeping = client.query("select pg_sleep(30)", &[]);
        let cancel = async {
            // The query has to be under way first.
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                token.cancel_query(NoTls).await.unwrap();
            }
        };
        let answer = tokio::select! {
            answer = sleeping => answer,
            () = cancel => unreachable!("it never ends"),
        };
        assert_eq!(answer.unwrap_err().code().unwrap().code(), "57014");
        let row = client.query_one("select 1", &[]).await;
        let row = match row {
            Err(error) if error.code().is_some_and(|code| code.code() == "57014") => {
                client.query_one("select 1", &[]).await
            }
            row => row,
        };
        assert_eq!(row.unwrap().get::<_, i32>(0), 1);
    });
}

#[test]
fn psql_runs_a_script() {
    for mode in MODES {
        let proxy = pooled(mode, 2);
        let data = proxy.folder().join("data.csv");
        fs::write(&data, "1,one\n2,two\n3,\"three, and more\"\n").unwrap();
        let out = proxy.folder().join("out.csv");
        let script = format!(
            "create table numbers (i int primary key, name text);\n\
             \\copy numbers from '{data}' with csv\n\
             begin;\nupdate numbers set name = upper(name) where i = 1;\ncommit;\n\
             select * from numbers order by i;\n\
             \\copy (select * from numbers order by i desc) to '{out}' with csv\n\
             \\set n 2\nselect name from numbers where i = :n;\n\
             select 1 as a \\gset\nselect :a + 1;\n\
             do $$ begin raise notice 'noticed'; end $$;\n\
             \\d numbers\n\\dt\n\\l\n\\conninfo\n",
            data = data.display(),
            out = out.display()
        );
        let run = psql(proxy.port(), "acme", proxy.folder(), &script).succeeded();
        assert!(
            run.out
                .starts_with("1|ONE\n2|two\n3|three, and more\ntwo\n2\n"),
            "{}",
            run.out
        );
        assert!(run.out.contains("i|integer||not null|"), "{}", run.out);
        assert!(run.err.contains("noticed"), "{}", run.err);
        let copied = fs::read_to_string(out).unwrap();
        assert_eq!(copied, "3,\"three, and more\"\n2,two\n1,ONE\n");
    }
}

#[test]
fn psql_stops_at_an_error() {
    let proxy = pooled(Mode::Transaction, 1);
    let run = psql(
        proxy.port(),
        "acme",
        proxy.folder(),
        "select 1;\nselect 1/0;\nselect 2;\n",
    );
    assert!(!run.is_success);
    assert_eq!(run.out, "1\n");
    assert!(run.err.contains("division by zero"), "{}", run.err);
    let wrong = run_psql_with(&proxy, "PGPASSWORD", "wrong");
    assert!(
        wrong.contains("password authentication failed for user \"acme\""),
        "{wrong}"
    );
    let elsewhere = run_psql_with(&proxy, "PGDATABASE", "elsewhere");
    assert!(elsewhere.contains("elsewhere"), "{elsewhere}");
}

fn run_psql_with(proxy: &Proxy, name: &str, value: &str) -> String {
    let mut command = program("psql", proxy.port(), "acme");
    let run = run(command
        .env(name, value)
        .args(["-X", "-w", "-c", "select 1"]));
    assert!(!run.is_success, "{}", run.out);
    run.err
}

#[test]
fn psql_takes_a_url() {
    let proxy = pooled(Mode::Transaction, 1);
    let mut command = program("psql", proxy.port(), "acme");
    command
        .env_remove("PGUSER")
        .env_remove("PGPASSWORD")
        .env_remove("PGDATABASE");
    let run = run(command
        .args(["-X", "-A", "-t", "-c", "select 'by url'"])
        .arg(proxy.url("acme")));
    assert_eq!(run.succeeded().out, "by url\n");
}

#[test]
fn pgbench_runs_in_its_three_modes() {
    for mode in MODES {
        let proxy = pooled(mode, 4);
        let bench = |arguments: &[&str]| {
            let mut command = program("pgbench", proxy.port(), "acme");
            run(command.args(arguments)).succeeded()
        };
        bench(&["-i", "-q", "-s", "1"]);
        for protocol in ["simple", "extended", "prepared"] {
            let run = bench(&["-n", "-S", "-M", protocol, "-c", "4", "-t", "100"]);
            assert!(
                run.out.contains("actually processed: 400/400"),
                "{protocol}: {}{}",
                run.out,
                run.err
            );
            let run = bench(&["-n", "-M", protocol, "-c", "4", "-t", "20"]);
            assert!(
                run.out.contains("actually processed: 80/80"),
                "{protocol}: {}{}",
                run.out,
                run.err
            );
        }
        let pipeline = proxy.folder().join("pipeline.sql");
        fs::write(
            &pipeline,
            "\\set a random(1, 1000)\n\\startpipeline\nselect abalance from pgbench_accounts where aid = :a;\n\
             select 1;\nselect abalance from pgbench_accounts where aid = :a + 1;\n\\endpipeline\n",
        )
        .unwrap();
        let file = pipeline.display().to_string();
        let run = bench(&["-n", "-M", "prepared", "-f", &file, "-c", "4", "-t", "50"]);
        assert!(
            run.out.contains("actually processed: 200/200"),
            "{}{}",
            run.out,
            run.err
        );
    }
}

#[test]
fn pg_dump_and_its_restore_run_in_a_session_of_their_own() {
    let proxy = pooled(Mode::Transaction, 3);
    let mut client = proxy.connect("acme").login();
    client.exec("create table kept (i int primary key, v text); insert into kept select g, repeat('d', 100) from generate_series(1, 1000) g");
    client.exec("create view seen as select count(*) from kept");
    let file = proxy.folder().join("dump.sql");
    let role = proxy.place("acme").role().to_owned();
    let mut dump = program("pg_dump", proxy.port(), "acme");
    dump.env("PGOPTIONS", "-c pgusher.pool_mode=session")
        .args(["-n", &role, "-f"])
        .arg(&file);
    run(&mut dump).succeeded();
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("CREATE TABLE") && text.contains("CREATE VIEW"));
    client.exec("drop table kept cascade");
    let restored = format!("drop schema {role} cascade;\n{text}");
    let mut restore = program("psql", proxy.port(), "acme");
    let script = proxy.folder().join("restore.sql");
    fs::write(
        &script,
        restored.replace(&format!("CREATE SCHEMA {role};"), ""),
    )
    .unwrap();
    proxy.place("acme").admin().exec(&format!(
        "drop schema {role} cascade; create schema {role} authorization {role}"
    ));
    let text = fs::read_to_string(&script).unwrap();
    fs::write(
        &script,
        text.replace(&format!("drop schema {role} cascade;"), ""),
    )
    .unwrap();
    restore.env("PGOPTIONS", "-c pgusher.pool_mode=session");
    run(restore
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"])
        .arg(&script))
    .succeeded();
    assert_eq!(client.value("select count(*) from kept"), "1000");
}

#[test]
fn the_keys_secret_is_all_a_program_needs() {
    let proxy = pooled(Mode::Transaction, 1);
    let mut command = program("psql", proxy.port(), "acme");
    command.env_remove("PGDATABASE");
    let run = run(command.args(["-X", "-A", "-t", "-c", "select current_database()"]));
    assert_eq!(
        run.succeeded().out.trim(),
        proxy.place("acme").database_name()
    );
    assert!(!proxy.log().contains(KEY));
}

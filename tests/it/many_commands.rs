//! Commands when the registry has no place, or is not there.

use crate::harness::{
    Client, Postgres, estate::ground, eventually, office::Office, port, proxy::PROGRAM,
};
use std::{
    fs,
    process::{Child, Command, Output, Stdio},
};

/// A PostgreSQL that has place for few connections.
fn small() -> Postgres {
    let mut postgres = Postgres::start();
    postgres
        .admin()
        .exec("alter system set max_connections = 15");
    postgres
        .admin()
        .exec("alter system set max_wal_senders = 0");
    postgres.stop();
    postgres.run();
    postgres
}

/// Starts a command and does not wait for it.
fn start(office: &Office, arguments: &[&str]) -> Child {
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments)
        .current_dir(office.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn thirty_at_once_share_the_few_connections_that_there_are() {
    let postgres = small();
    let office = Office::new(postgres.endpoint());
    office.add_cluster("main", ground().endpoint(), &[]);
    let children: Vec<_> = (0..30)
        .map(|number| {
            let tier = ["schema", "row", "database"][number % 3];
            let id = format!("t-{number}");
            start(&office, &["tenant", "create", &id, "--tier", tier])
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    let active = "select count(*) from pgusher.tenant where status = 'active'";
    assert_eq!(office.admin().value(active), "30");
}

#[test]
fn a_command_waits_while_there_is_no_place() {
    let postgres = small();
    let office = Office::new(postgres.endpoint());
    office.run(&["migrate"]).succeeded();
    let mut clients: Vec<Client> = Vec::new();
    eventually("there is no place", || {
        match postgres.endpoint().admin_if_up() {
            Some(client) => {
                clients.push(client);
                false
            }
            None => true,
        }
    });
    let mut child = start(&office, &["tenant", "list"]);
    assert!(child.try_wait().unwrap().is_none());
    drop(clients);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    let office = Office::new(Postgres::shared().endpoint());
    let port = port::free();
    let toml = fs::read_to_string(office.path().join("proxy.toml")).unwrap();
    let secret = format!("postgres://me:hunter2@127.0.0.1:{port}/nowhere");
    let toml = toml.replace(&office.url(), &secret);
    fs::write(office.path().join("proxy.toml"), toml).unwrap();
    let commands: [&[&str]; 3] = [
        &["migrate"],
        &["key", "list", "acme"],
        &["tenant", "create", "acme", "--tier", "row"],
    ];
    for arguments in commands {
        let output = start(&office, arguments).wait_with_output().unwrap();
        let told = text(&output);
        let says = format!("the registry at 127.0.0.1:{port} does not answer (");
        assert!(told.contains(&says), "{told}");
        assert!(
            !told.contains("pool") && !told.contains("hunter2"),
            "{told}"
        );
        assert_eq!(output.status.code(), Some(1));
    }
}

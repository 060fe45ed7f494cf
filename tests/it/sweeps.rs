//! What was left half done is gone on with by a running proxy.

use crate::harness::{
    estate::{Estate, traces},
    eventually, port,
    proxy::PROGRAM,
};
use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// A proxy that sweeps often. It ends with the test.
struct Sweeping {
    child: Child,
    log: PathBuf,
}

impl Sweeping {
    fn start(estate: &Estate) -> Self {
        let folder = estate.office.path();
        let toml = fs::read_to_string(folder.join("proxy.toml")).unwrap();
        let toml = toml.replace("[registry]\n", "[registry]\nsweep_interval = \"300ms\"\n");
        let listen = port::free();
        let proxy = format!(
            "[proxy]\nlisten = \"127.0.0.1:{listen}\"\nworkers = 1\nlog_level = \"debug\"\n"
        );
        let file = folder.join("sweeping.toml");
        fs::write(&file, proxy + &toml).unwrap();
        let log = folder.join("log");
        let child = Command::new(PROGRAM)
            .args(["serve", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    fn says(&self, what: &str) -> bool {
        fs::read_to_string(&self.log).unwrap().contains(what)
    }
}

impl Drop for Sweeping {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            eprintln!("the proxy's last words:\n{}", last.join("\n"));
        }
    }
}

/// Ends the creation of `acme` in the middle, as `kill -9` does.
fn half_made(estate: &Estate) {
    let mut holder = estate.registry();
    holder.exec("begin; lock table pgusher.api_key in share mode");
    let mut child = estate.start(&["tenant", "create", "acme", "--tier", "schema"]);
    let waits = "select 1 from pg_stat_activity where wait_event_type = 'Lock' \
                 and application_name = 'pgusher' and datname = current_database()";
    let mut registry = estate.registry();
    eventually("it waits", || !registry.values(waits).is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    holder.exec("rollback");
    assert_eq!(estate.field("acme", "status"), "provisioning");
}

fn is_active(estate: &Estate) -> bool {
    estate.field("acme", "status") == "active"
}

#[test]
fn a_creation_that_was_killed_is_finished_by_a_running_proxy() {
    let estate = Estate::new();
    half_made(&estate);
    let _proxy = Sweeping::start(&estate);
    eventually("it is finished", || is_active(&estate));
    let actors = "select actor from pgusher.event where tenant = 'acme' order by seq desc limit 1";
    assert_eq!(estate.registry().value(actors), "system");
    assert_eq!(estate.events("acme").last().unwrap(), "Activated");
}

#[test]
fn a_tenant_whose_grace_is_over_is_removed_by_a_running_proxy_and_no_other_is() {
    let estate = Estate::new();
    estate.create("kept", "row");
    let delete = |id, grace| {
        let delete = ["tenant", "delete", id, "--grace", grace];
        estate.office.run(&delete).succeeded();
    };
    delete("kept", "1h");
    estate.create("acme", "schema");
    let token = estate.field("acme", "token");
    assert_ne!(traces(&token), "0");
    let _proxy = Sweeping::start(&estate);
    delete("acme", "1s");
    eventually("it is removed", || estate.field("acme", "id").is_empty());
    assert_eq!(traces(&token), "0");
    assert_eq!(estate.field("kept", "status"), "terminated");
}

#[test]
fn one_proxy_sweeps_at_a_time() {
    let estate = Estate::new();
    half_made(&estate);
    let mut other = estate.registry();
    other.exec("select pg_advisory_lock(7202414, 0)");
    let proxy = Sweeping::start(&estate);
    eventually("it leaves it to the other", || {
        proxy.says("another proxy sweeps")
    });
    assert!(!is_active(&estate));
    drop(other);
    eventually("it sweeps itself", || is_active(&estate));
}

#[test]
fn what_cannot_be_gone_on_with_is_told_and_keeps_no_other() {
    let estate = Estate::new();
    half_made(&estate);
    let mut registry = estate.registry();
    registry.exec(
        "insert into pgusher.cluster (name, primary_url, admin_role) \
         values ('gone', 'postgres://127.0.0.1:1', 'admin'); \
         insert into pgusher.tenant (id, name, tier, status, cluster, database_name, token, role, \
             scram_salt, remove_at, created_at) \
         values ('lost', 'lost', 'row', 'terminated', 'gone', 'd', 'aaaaaaaaaaaaaaaaaaaa', 'r', \
             '\\x00', now(), now() - interval '1 day')",
    );
    let proxy = Sweeping::start(&estate);
    eventually("the other is finished", || is_active(&estate));
    eventually("the lost one is told of", || {
        proxy.says("a tenant can't be gone on with")
    });
}

#[test]
fn a_tenant_that_was_begun_with_templates_is_left_to_who_has_them() {
    let estate = Estate::new();
    let folder = estate.office.path().join("templates/schema");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("0001_first.sql"), "CREATE TABLE first ()").unwrap();
    let file = estate.office.path().join("proxy.toml");
    let without = fs::read_to_string(&file).unwrap();
    let with = without.clone() + "[templates]\ndirectory = \"templates\"\n";
    fs::write(&file, &with).unwrap();
    half_made(&estate);
    fs::write(&file, &without).unwrap();
    let proxy = Sweeping::start(&estate);
    eventually("it is told", || {
        proxy.says("a half made tenant is left to others")
    });
    let says = "was begun with templates up to version 1, which are not here: go on with it where [templates] in";
    for command in [
        &["tenant", "sweep"][..],
        &["tenant", "resume-provisioning", "acme"],
        &["tenant", "create", "acme", "--tier", "schema"],
    ] {
        eventually("its turn has come", || estate.fails(command).contains(says));
    }
    assert!(!is_active(&estate));
    drop(proxy);
    fs::write(&file, with).unwrap();
    let _proxy = Sweeping::start(&estate);
    eventually("it is finished", || is_active(&estate));
    assert_eq!(estate.field("acme", "template_version"), "1");
}

//! SIGUSR2: another process takes over, and no client notices.

use crate::harness::{
    Client, Connect, DEADLINE, Mode, Place, Postgres, Proxy, Request, Tenant,
    books::Books,
    connect::{Address, V3_0, V3_2},
    eventually, eventually_some,
    frames::{code, error},
    http::Http,
    postgres::signal,
    proxy::{Builder, PROGRAM, pooled},
    proxy_file::{KEY, ProxyFile},
};
use std::{
    fs,
    net::TcpListener,
    ops::{Deref, DerefMut},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt as _, net::UnixDatagram},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    thread,
};

/// A proxy with its successors, who end with it.
struct Line(Proxy);

impl Deref for Line {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        &self.0
    }
}

impl DerefMut for Line {
    fn deref_mut(&mut self) -> &mut Proxy {
        &mut self.0
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        kill_all(self.0.folder());
    }
}

/// The processes that serve this folder's file.
fn processes(folder: &Path) -> Vec<u32> {
    let folder = folder.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let serves = |pid: &u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        words.contains("serve\0--config") && words.contains(folder)
    };
    pids.filter(serves).collect()
}

fn kill_all(folder: &Path) {
    for pid in processes(folder) {
        // It may just have ended.
        let pid = pid.to_string();
        Command::new("kill").args(["-KILL", &pid]).status().ok();
    }
}

const TAKEN_OVER: &str = "another process takes the connections";
const FAILED: &str = "restart failed, nothing was changed";

impl Line {
    fn of(builder: Builder) -> Self {
        Self(builder.start())
    }

    /// How often the log has these words.
    fn said(&self, words: &str) -> usize {
        self.log().matches(words).count()
    }

    /// Has this process hand over; the successor's pid.
    fn restart(&self, pid: u32) -> u32 {
        let before = self.said(TAKEN_OVER);
        signal("USR2", &pid.to_string());
        eventually("another process takes over", || {
            self.said(TAKEN_OVER) > before
        });
        let log = self.log();
        let line = log.lines().rfind(|line| line.contains(TAKEN_OVER));
        let pid = line.unwrap().split(" pid=").nth(1).unwrap();
        pid.split(' ').next().unwrap().parse().unwrap()
    }

    fn fails(&self, words: &str) {
        let before = self.said(FAILED);
        self.signal("USR2");
        eventually("the restart fails", || self.said(FAILED) > before);
        let log = self.log();
        let line = log.lines().rfind(|line| line.contains(FAILED)).unwrap();
        assert!(line.contains(words), "{line}");
    }
}

/// Waits for a socket that is listened on a moment later than the first.
fn listens(connect: &Connect) {
    eventually("it listens", || connect.try_open().is_ok());
}

fn has_ended(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.is_empty())
        || !Path::new(&format!("/proc/{pid}")).exists()
}

fn start_sleep(client: &mut Client) {
    client.send(&Request::new().query("select pg_sleep(60)"));
}

fn wait_until_sleeping(place: &Place, count: u32) {
    let role = place.role();
    let mut admin = place.admin();
    let sql = format!(
        "select count(*) from pg_stat_activity where usename = '{role}' and wait_event = 'PgSleep'"
    );
    eventually("the query runs", || admin.value(&sql) == count.to_string());
}

#[test]
fn three_restarts_disturb_nobody() {
    let place = Postgres::shared().place();
    place.direct().login().exec("create table t (i int)");
    let builder = Proxy::of([Tenant::new("acme", &place).pool_size(3)]).admin();
    let path = builder.folder().join("socket");
    let unix = format!("unix:{}", path.display());
    let mut line = Line::of(builder.set("listen", unix));
    let tcp = line.connect("acme");
    let unix = line.connect("acme").address(Address::Unix(path));
    listens(&unix);
    let admin = line.admin_port();
    let (is_done, visits, transactions) =
        (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let is_enough = |count: &AtomicU32, than: u32| {
        eventually("the load goes on", || count.load(Relaxed) > than);
    };
    let mut pid = line.pid();
    thread::scope(|scope| {
        let _done = Done(&is_done);
        for connect in [&tcp, &tcp, &unix] {
            scope.spawn(|| {
                while !is_done.load(Relaxed) {
                    let mut client = connect.login();
                    assert_eq!(client.value("select 7"), "7");
                    client.send(&Request::new().terminate());
                    visits.fetch_add(1, Relaxed);
                }
            });
        }
        for connect in [&tcp, &unix] {
            scope.spawn(|| {
                let mut client = connect.login();
                while !is_done.load(Relaxed) {
                    for sql in ["begin", "insert into t values (1)", "commit"] {
                        assert_eq!(error(&client.query(sql)), None);
                    }
                    transactions.fetch_add(1, Relaxed);
                }
            });
        }
        scope.spawn(|| {
            while !is_done.load(Relaxed) {
                assert_eq!(Http::new(admin).get("/readyz").status, 200);
            }
        });
        let mut pids = vec![pid];
        for _ in 0..3 {
            let (visited, done) = (visits.load(Relaxed), transactions.load(Relaxed));
            is_enough(&visits, visited + 5);
            pid = line.restart(pid);
            assert!(!pids.contains(&pid), "{pid}");
            pids.push(pid);
            is_enough(&visits, visited + 20);
            is_enough(&transactions, done + 20);
        }
    });
    // With their sessions, those before it end.
    assert!(line.end().success());
    eventually("only the last is left", || {
        processes(line.folder()) == [pid]
    });
    tcp.login().is_in_step();
    unix.login().is_in_step();
    let metrics = Http::new(admin).get("/metrics").body;
    let counted = "pgusher_restarts_total{result=\"ok\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    let count = place.direct().login().value("select count(*) from t");
    assert_eq!(count, transactions.load(Relaxed).to_string());
    assert!(!line.log().contains("panicked"), "{}", line.log());
}

/// Ends the load, even where an assertion fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn a_cancel_finds_its_session_across_restarts() {
    let line = Line::of(Proxy::of([Tenant::new(
        "acme",
        &Postgres::shared().place(),
    )]));
    let place = line.place("acme");
    let connects = [V3_0, V3_2].map(|version| line.connect("acme").version(version));
    let mut clients = connects.clone().map(|connect| connect.login());
    for client in &mut clients {
        start_sleep(client);
    }
    let second = line.restart(line.pid());
    let mut young = connects[0].login();
    start_sleep(&mut young);
    wait_until_sleeping(&place, 3);
    let third = line.restart(second);
    // One that is nobody's stays so, and does no harm.
    connects[0].cancel_key(clients[0].pid, b"none");
    wait_until_sleeping(&place, 3);
    for (connect, client) in connects.iter().zip(&mut clients) {
        connect.cancel(client);
        assert_eq!(code(&client.until_ready()), "57014");
        client.is_in_step();
    }
    connects[0].cancel(&young);
    assert_eq!(code(&young.until_ready()), "57014");
    // The first is found when the second has left, too.
    young.send(&Request::new().terminate());
    eventually("the second ends", || has_ended(second));
    start_sleep(&mut clients[0]);
    wait_until_sleeping(&place, 1);
    connects[0].cancel(&clients[0]);
    assert_eq!(code(&clients[0].until_ready()), "57014");
    assert!(!has_ended(third));
}

#[test]
fn a_new_process_that_does_not_get_ready_changes_nothing() {
    let mut line = Line::of(Proxy::of([Tenant::new(
        "acme",
        &Postgres::shared().place(),
    )]));
    let mut client = line.connect("acme").login();
    client.exec("begin");
    let path = line.folder().join("proxy.toml");
    let good = fs::read_to_string(&path).unwrap();
    for (bad, status) in [
        ("this is not TOML [".to_owned(), "exit status: 2"),
        (
            good.replacen(
                "listen = ",
                "proxy_protocol_listen = \"203.0.113.7:1\"\nlisten = ",
                1,
            ),
            "exit status: 1",
        ),
    ] {
        assert_ne!(bad, good);
        fs::write(&path, bad).unwrap();
        line.fails(status);
        line.connect("acme").login().is_in_step();
        client.is_in_step();
    }
    assert!(line.is_alive());
    fs::write(&path, good).unwrap();
    line.restart(line.pid());
    client.exec("commit");
    line.connect("acme").login().is_in_step();
}

#[test]
fn what_is_left_after_the_grace_ends_at_a_boundary() {
    let mut line = Line::of(
        Proxy::of([Tenant::new("acme", &Postgres::shared().place())]).set("restart_grace", "0"),
    );
    let mut idle = line.connect("acme").login();
    let mut busy = line.connect("acme").login();
    busy.exec("create table t (i int); begin; insert into t values (1)");
    line.restart(line.pid());
    idle.is_in_step();
    busy.exec("insert into t values (2)");
    // As long as they like; now no longer.
    line.reload(|file| file.set("restart_grace", "10ms"));
    idle.ends_with("57P01");
    busy.exec("insert into t values (3)");
    assert_eq!(error(&busy.query("commit")), None);
    busy.ends_with("57P01");
    assert!(line.end().success());
    let mut new = line.connect("acme").login();
    assert_eq!(new.value("select count(*) from t"), "3");
}

#[test]
fn the_old_process_may_die_or_be_stopped_once_another_serves() {
    for name in ["KILL", "TERM"] {
        let mut line = Line(pooled(Mode::Transaction, 2));
        let mut old = line.connect("acme").login();
        old.exec("begin");
        let pid = line.restart(line.pid());
        let mut new = line.connect("acme").login();
        new.exec("begin");
        line.signal(name);
        if name == "TERM" {
            assert_eq!(error(&old.query("commit")), None);
            old.ends_with("57P01");
        }
        line.end();
        new.exec("commit");
        new.is_in_step();
        line.connect("acme").login().is_in_step();
        line.restart(pid);
        line.connect("acme").login().is_in_step();
    }
}

#[test]
fn the_new_process_serves_by_the_new_file() {
    let place = Postgres::shared().place();
    let builder = Proxy::of([Tenant::new("acme", &place)]);
    let paths = ["old", "new"].map(|name| builder.folder().join(name));
    let listen = paths.clone().map(|path| format!("unix:{}", path.display()));
    let mut line = Line::of(builder.set("listen", listen[0].clone()));
    let at = |path: &PathBuf| line.connect("acme").address(Address::Unix(path.clone()));
    let [old, new] = [at(&paths[0]), at(&paths[1])];
    listens(&old);
    old.login().is_in_step();
    let tcp = format!("127.0.0.1:{}", line.port());
    line.file.set("listen", vec![listen[1].clone(), tcp]);
    line.file.set("workers", 1);
    line.file
        .tenants
        .push(Tenant::new("newer", &Postgres::shared().place()));
    fs::write(line.folder().join("proxy.toml"), line.file.render()).unwrap();
    assert!(new.try_open().is_err());
    line.restart(line.pid());
    new.login().is_in_step();
    line.connect("acme").login().is_in_step();
    line.connect("newer").login().is_in_step();
    assert!(old.try_open().is_err());
    assert!(!paths[0].exists());
    assert!(line.end().success());
    // The socket file is the new process's now.
    new.login().is_in_step();
}

#[test]
fn tenants_of_the_registry_go_on_with_both() {
    let books = Books::new(Postgres::shared());
    let line = Line::of(books.proxy().admin());
    books.add_cluster(Postgres::shared().endpoint());
    books.add("acme", &Postgres::shared().place());
    let login = || eventually_some("acme logs in", || line.connect("acme").try_login().ok());
    let mut old = login();
    old.exec("begin");
    line.restart(line.pid());
    let mut new = login();
    new.exec("begin");
    assert_eq!(Http::new(line.admin_port()).get("/readyz").status, 200);
    old.exec("commit");
    // What changes now concerns the sessions of both.
    let suspend = "update pgusher.tenant set status = 'suspended' where id = 'acme'";
    books.admin().exec(suspend);
    old.ends_with("57P01");
    new.ends_with("57P01");
}

#[test]
fn the_old_process_keeps_no_servers_that_it_does_not_need() {
    let place = Postgres::shared().place();
    let tenant = Tenant::new("acme", &place)
        .pool_size(4)
        .set("min_pool_size", 2);
    let line = Line::of(Proxy::of([tenant]));
    let mut admin = place.admin();
    let mut clients: Vec<_> = (0..3).map(|_| line.connect("acme").login()).collect();
    for client in &mut clients {
        client.exec("begin");
    }
    for client in &mut clients[1..] {
        client.exec("commit");
    }
    assert_eq!(place.server_pids(&mut admin).len(), 3);
    line.restart(line.pid());
    eventually("idle servers are closed", || {
        place.server_pids(&mut admin).len() == 1
    });
    // Who comes back finds one, for as long as it needs it.
    clients[1].is_in_step();
    clients[0].exec("commit");
    eventually("none is left", || place.server_pids(&mut admin).is_empty());
    clients[0].is_in_step();
}

/// A proxy that was started by a name of its own, so that the program can be replaced.
struct Own {
    folder: tempfile::TempDir,
    child: Child,
}

impl Drop for Own {
    fn drop(&mut self) {
        kill_all(self.folder.path());
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Own {
    fn program(&self) -> PathBuf {
        self.folder.path().join("pgusher")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Puts a script in the program's place.
    fn replace(&self, script: &str) {
        let fresh = self.folder.path().join("fresh");
        fs::write(&fresh, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(fresh, self.program()).unwrap();
    }

    fn says(&self, words: &str) {
        let folder = self.folder.path();
        eventually_some(words, || {
            let log = fs::read_to_string(folder.join("log")).unwrap();
            log.contains(words).then_some(())
        });
    }
}

/// With a log in its folder, and a notification socket.
fn own(place: &Place, change: impl FnOnce(&mut ProxyFile, &Path)) -> (Own, UnixDatagram) {
    let folder = tempfile::tempdir().unwrap();
    let mut file = ProxyFile::new(place.endpoint(), vec![Tenant::new("acme", place)]);
    change(&mut file, folder.path());
    fs::write(folder.path().join("proxy.toml"), file.render()).unwrap();
    std::os::unix::fs::symlink(PROGRAM, folder.path().join("pgusher")).unwrap();
    let notified = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    notified.set_read_timeout(Some(DEADLINE)).unwrap();
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    fs::write(folder.path().join("port"), port.to_string()).unwrap();
    // The shell puts the socket where systemd does, descriptor 3, and becomes the program.
    let script =
        "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve --config \"$1\"";
    let child = Command::new("sh")
        .args(["-c", script])
        .arg(folder.path().join("pgusher"))
        .arg(folder.path().join("proxy.toml"))
        .env("NOTIFY_SOCKET", folder.path().join("notify"))
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    (Own { folder, child }, notified)
}

impl Own {
    fn connect(&self) -> Connect {
        let port = fs::read_to_string(self.folder.path().join("port")).unwrap();
        let address = Address::Tcp(([127, 0, 0, 1], port.parse().unwrap()).into());
        Connect::to(address).user("acme").password(KEY)
    }
}

fn until_notified(socket: &UnixDatagram, words: &str) -> String {
    loop {
        let mut message = [0; 1000];
        let length = socket.recv(&mut message).expect("a message in time");
        let said = String::from_utf8_lossy(&message[..length]).into_owned();
        if said.contains(words) {
            return said;
        }
    }
}

#[test]
fn a_socket_of_systemd_goes_on_and_systemd_follows() {
    let (mut own, notified) = own(&Postgres::shared().place(), |_, _| {});
    until_notified(&notified, "READY=1");
    own.connect().login().is_in_step();
    let mut pid = own.child.id();
    for _ in 0..2 {
        signal("USR2", &pid.to_string());
        let said = until_notified(&notified, "MAINPID=");
        let new = said.trim().trim_start_matches("MAINPID=").parse().unwrap();
        assert_ne!(new, pid);
        pid = new;
        own.connect().login().is_in_step();
    }
    let child = &mut own.child;
    let status = eventually_some("the first ends", || child.try_wait().unwrap());
    assert!(status.success(), "{}", own.log());
    own.connect().login().is_in_step();
    // The old ones say nothing of an end.
    signal("TERM", &pid.to_string());
    until_notified(&notified, "STOPPING=1");
    notified.set_nonblocking(true).unwrap();
    assert!(notified.recv(&mut [0; 100]).is_err());
}

#[test]
fn the_program_is_replaced_by_what_has_its_name_now() {
    let (mut own, notified) = own(&Postgres::shared().place(), |file, _| {
        file.set("restart_timeout", "2s");
    });
    until_notified(&notified, "READY=1");
    let pid = own.child.id().to_string();
    let mut client = own.connect().login();
    own.replace("exit 3");
    signal("USR2", &pid);
    own.says("the new process ended before it was ready: exit status: 3");
    own.replace("kill -SEGV $$");
    signal("USR2", &pid);
    own.says("signal: 11");
    client.is_in_step();
    // A second signal meanwhile is refused; one that never gets ready is killed.
    let begun = own.folder.path().join("begun");
    own.replace(&format!("echo $$ > {}; exec sleep 60", begun.display()));
    signal("USR2", &pid);
    let slow = eventually_some("it begins", || {
        let pid = fs::read_to_string(&begun).ok()?;
        pid.trim().parse::<u32>().ok()
    });
    signal("USR2", &pid);
    own.says("no second restart: one is under way");
    own.says("the new process was not ready within 2s: signal: 9");
    assert!(has_ended(slow));
    own.connect().login().is_in_step();
    own.replace(&format!("echo replaced; exec {PROGRAM} \"$@\""));
    signal("USR2", &pid);
    until_notified(&notified, "MAINPID=");
    assert!(own.log().contains("replaced"));
    signal("USR2", &pid);
    own.says("no restart: another process has taken over already");
    client.send(&Request::new().terminate());
    let child = &mut own.child;
    let status = eventually_some("the old one ends", || child.try_wait().unwrap());
    assert!(status.success());
    own.connect().login().is_in_step();
}

#[test]
fn the_new_process_serves_though_the_old_one_dies_meanwhile() {
    let (mut own, notified) = own(&Postgres::shared().place(), |_, _| {});
    until_notified(&notified, "READY=1");
    let [begun, go] = ["begun", "go"].map(|name| own.folder.path().join(name));
    own.replace(&format!(
        "echo > {}; until [ -e {} ]; do sleep 0.02; done; exec {PROGRAM} \"$@\"",
        begun.display(),
        go.display()
    ));
    signal("USR2", &own.child.id().to_string());
    eventually("it begins", || begun.exists());
    own.child.kill().unwrap();
    own.child.wait().unwrap();
    // Nobody is refused; it only takes a moment.
    let mut waiting = own.connect().open();
    fs::write(&go, "").unwrap();
    waiting.send_bytes(&own.connect().startup_packet());
    waiting.until('R');
    until_notified(&notified, "READY=1");
    own.connect().login().is_in_step();
}

#[test]
fn a_stop_in_the_middle_of_a_restart_stops_both() {
    let (mut own, notified) = own(&Postgres::shared().place(), |_, _| {});
    until_notified(&notified, "READY=1");
    let begun = own.folder.path().join("begun");
    own.replace(&format!("echo $$ > {}; exec sleep 60", begun.display()));
    let pid = own.child.id().to_string();
    signal("USR2", &pid);
    let slow = eventually_some("it begins", || {
        let pid = fs::read_to_string(&begun).ok()?;
        pid.trim().parse::<u32>().ok()
    });
    signal("TERM", &pid);
    let child = &mut own.child;
    let status = eventually_some("it ends", || child.try_wait().unwrap());
    assert!(status.success());
    eventually("the new one ends", || has_ended(slow));
    assert!(own.connect().try_open().is_err());
}

#[test]
fn a_drain_as_kubernetes_asks_for_it() {
    let place = Postgres::shared().place();
    let mut proxy = Proxy::of([Tenant::new("acme", &place)]).admin().start();
    let admin = Http::new(proxy.admin_port());
    let mut idle = proxy.connect("acme").login();
    let mut busy = proxy.connect("acme").login();
    busy.exec("create table t (i int); begin; insert into t values (1)");
    // While preStop waits for the endpoints to change, it goes on.
    assert_eq!(admin.get("/readyz").status, 200);
    proxy.connect("acme").login().is_in_step();
    proxy.signal("TERM");
    idle.ends_with("57P01");
    assert_eq!(admin.get("/readyz").status, 503);
    assert_eq!(admin.get("/healthz").status, 200);
    busy.exec("insert into t values (2)");
    assert_eq!(error(&busy.query("commit")), None);
    busy.ends_with("57P01");
    assert_eq!(proxy.end().code(), Some(0));
    assert_eq!(place.direct().login().value("select count(*) from t"), "2");
}

//! systemd: sockets that are handed over, and word that all is ready.

use crate::harness::{
    Connect, Postgres, ProxyFile, Tenant, connect::Address, eventually, postgres::signal,
    proxy::PROGRAM, proxy_file::KEY, wait::DEADLINE,
};
use std::{
    fs,
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// Ends the process with the test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn file() -> (TempDir, ProxyFile) {
    let place = Postgres::shared().place();
    let file = ProxyFile::new(place.endpoint(), vec![Tenant::new("acme", &place)]);
    (tempfile::tempdir().unwrap(), file)
}

fn notified(socket: &UnixDatagram) -> String {
    let mut message = [0; 1000];
    let length = socket.recv(&mut message).expect("a message in time");
    String::from_utf8_lossy(&message[..length]).into_owned()
}

#[test]
fn systemd_is_told_when_it_is_ready_and_when_it_ends() {
    let (folder, mut file) = file();
    let port = crate::harness::port::free();
    file.set("listen", format!("127.0.0.1:{port}"));
    let path = folder.path().join("proxy.toml");
    fs::write(&path, file.render()).unwrap();
    let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let child = Command::new(PROGRAM)
        .args(["serve", "--config"])
        .arg(&path)
        .env("NOTIFY_SOCKET", folder.path().join("notify"))
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut guard = Guard(child);
    let first = notified(&socket);
    assert!(first.contains("READY=1"), "{first}");
    // Ready means: now, not soon.
    let address = Address::Tcp(([127, 0, 0, 1], port).into());
    Connect::to(address)
        .user("acme")
        .password(KEY)
        .login()
        .is_in_step();
    signal("TERM", &guard.0.id().to_string());
    let mut said = String::new();
    while !said.contains("STOPPING=1") {
        said = notified(&socket);
    }
    eventually("it ends", || guard.0.try_wait().unwrap().is_some());
}

#[test]
fn a_socket_that_systemd_holds_is_served() {
    let (folder, file) = file();
    let path = folder.path().join("proxy.toml");
    fs::write(&path, file.render()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    // The shell puts the socket where systemd does, descriptor 3, and becomes the program.
    let script =
        "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve --config \"$1\"";
    let child = Command::new("sh")
        .args(["-c", script, PROGRAM])
        .arg(&path)
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let _guard = Guard(child);
    // The kernel accepted already; the answer comes when the program serves.
    let mut client = Connect::to(address).user("acme").password(KEY).login();
    client.is_in_step();
}

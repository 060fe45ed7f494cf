//! The admin listener: health, readiness, metrics.

use crate::harness::{DEADLINE, Postgres, Proxy, Request, Tenant, eventually, proxy_file::KEY};
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// A response: status and body.
fn get(port: u16, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (
        status.unwrap_or_else(|| panic!("no HTTP: {text}")),
        body.unwrap_or_default(),
    )
}

fn proxy() -> Proxy {
    Proxy::of([Tenant::new("acme", &Postgres::shared().place())])
        .admin()
        .start()
}

#[test]
fn it_is_well_and_ready() {
    let proxy = proxy();
    eventually("it is well", || {
        get(proxy.admin_port(), "/healthz").0 == 200
    });
    eventually("it is ready", || {
        get(proxy.admin_port(), "/readyz").0 == 200
    });
    assert_eq!(get(proxy.admin_port(), "/nothing").0, 404);
}

#[test]
fn it_is_not_ready_while_it_ends() {
    let mut proxy = proxy();
    let mut client = proxy.connect("acme").login();
    client.exec("begin");
    proxy.signal("TERM");
    eventually("it is not ready", || {
        get(proxy.admin_port(), "/readyz").0 == 503
    });
    assert_eq!(get(proxy.admin_port(), "/healthz").0, 200);
    client.exec("commit");
    assert!(proxy.end().success());
}

/// Holds an exposition to its form, and returns the sum of a metric over its labels.
fn sum(text: &str, name: &str) -> Option<f64> {
    let mut sum = None;
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let (series, value) = line
            .rsplit_once(' ')
            .unwrap_or_else(|| panic!("not a sample: {line}"));
        let value: f64 = value
            .parse()
            .unwrap_or_else(|_| panic!("not a number: {line}"));
        if series.split('{').next() == Some(name) {
            sum = Some(sum.unwrap_or(0.0) + value);
        }
    }
    sum
}

#[test]
fn metrics_count_what_happens() {
    let proxy = proxy();
    let metrics = || get(proxy.admin_port(), "/metrics").1;
    let mut client = proxy.connect("acme").login();
    for _ in 0..10 {
        client.exec("select 1");
    }
    proxy.connect("acme").password("wrong").refused();
    let text = metrics();
    let names: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("# TYPE"))
        .collect();
    assert!(names.len() >= 5, "{text}");
    for line in &names {
        assert!(line.starts_with("# TYPE pgusher_"), "{line}");
    }
    eventually("clients are counted", || {
        sum(&metrics(), "pgusher_client_connections").is_some_and(|sum| sum >= 1.0)
    });
    eventually("servers are counted", || {
        sum(&metrics(), "pgusher_server_connections").is_some_and(|sum| sum >= 1.0)
    });
    client.send(&Request::new().terminate());
    client.rest();
    eventually("the client is gone", || {
        sum(&metrics(), "pgusher_client_connections") == Some(0.0)
    });
    assert!(!metrics().contains(KEY));
}

#[test]
fn strangers_to_http_do_no_harm() {
    let mut proxy = proxy();
    for bytes in [
        &[0; 100][..],
        b"GET",
        b"POST / HTTP/9.9\r\n\r\n",
        &[0xff; 10_000],
    ] {
        let mut socket = TcpStream::connect(("127.0.0.1", proxy.admin_port())).unwrap();
        socket.write_all(bytes).ok();
        drop(socket);
    }
    assert_eq!(get(proxy.admin_port(), "/healthz").0, 200);
    proxy.connect("acme").login().is_in_step();
    assert!(proxy.is_alive());
}

//! What all cases stand on.

use crate::harness::{
    Client, Fleet, Proxy, Request, Tenant, eventually_some,
    fleet::PRIMARY,
    frames,
    http::Http,
    programs::{self, Run},
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// A tenant in a quiet place, with room for everybody.
pub fn tenant(fleet: &Fleet, id: &str) -> Tenant {
    Tenant::new(id, &fleet.quiet_place()).pool_size(20)
}

/// Gives a tenant pgbench's tables.
pub fn fill(proxy: &Proxy, tenant: &str) {
    let mut pgbench = programs::program("pgbench", proxy.port(), tenant);
    programs::run(pgbench.args(["-i", "-q", "-s", "2", "-I", "dtgp"])).succeeded();
}

/// Prepared point selects of sixteen clients.
pub fn point_selects(proxy: &Proxy, tenant: &str, seconds: u32) -> Run {
    let mut pgbench = programs::program("pgbench", proxy.port(), tenant);
    let options = [
        "-n", "-S", "-M", "prepared", "-c", "16", "-j", "2", "-s", "2", "-T",
    ];
    programs::run(pgbench.args(options).arg(seconds.to_string())).succeeded()
}

/// The transactions of a run of pgbench.
pub fn transactions(run: &Run) -> f64 {
    let line = "number of transactions actually processed: ";
    let count = run.out.lines().find_map(|text| text.strip_prefix(line));
    count.expect("a count").parse().unwrap()
}

/// What the proxy has counted: the sum of the samples with this name and label.
pub fn figure(proxy: &Proxy, name: &str, label: &str) -> f64 {
    let text = Http::new(proxy.admin_port()).get("/metrics").body;
    let samples = text.lines().filter(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
    });
    let values = samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum()
}

/// Waits until reads of the tenant go to replicas; panics after the usual deadline.
pub fn settle(proxy: &Proxy, tenant: &str) {
    let mut client = proxy.connect(tenant).login();
    eventually_some("replicas answer", || {
        let count = || figure(proxy, "pgusher_routed_total", "target=\"replica\"");
        let before = count();
        client.exec("select 'settled'");
        (count() > before).then_some(())
    });
}

/// Transactions committed so far on each server.
pub fn committed(fleet: &Fleet) -> Vec<f64> {
    let sql = "select xact_commit from pg_stat_database where datname = 'shared'";
    let servers = std::iter::once(PRIMARY).chain(fleet.replicas());
    let count = |at| fleet.admin(at).value(sql).parse::<f64>().unwrap();
    servers.map(count).collect()
}

/// Waits. A bench does so for windows, never to hope for an event.
pub fn pause(duration: Duration) {
    let end = Instant::now() + duration;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        if left.is_zero() {
            break;
        }
        thread::park_timeout(left);
    }
}

/// Asks without being sure of an answer; the SQLSTATE of the error, or "" when the connection ends.
pub fn attempt(client: &mut Client, sql: &str) -> Result<(), String> {
    let mut answer = Vec::new();
    if client
        .try_send_bytes(Request::new().query(sql).bytes())
        .is_ok()
    {
        while let Some(frame) = client.next_or_end() {
            let is_ready = frame.tag == b'Z';
            answer.push(frame);
            if is_ready && frames::error(&answer).is_none() {
                return Ok(());
            }
            if is_ready {
                break;
            }
        }
    }
    Err(frames::code(&answer))
}

//! What must be left when all clients have gone: nothing.

use super::{
    harness::{DEADLINE, Proxy, eventually},
    model::Model,
    setting::question,
    world::World,
};
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// The value of a metric; all of its labels together.
fn metric(proxy: &Proxy, name: &str) -> f64 {
    let mut socket = TcpStream::connect(("127.0.0.1", proxy.admin_port())).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

/// No client keeps a server.
pub fn no_server_is_stranded(proxy: &Proxy) {
    for name in [
        "pgusher_server_connections{state=\"active\"}",
        "pgusher_pinned_servers",
        "pgusher_clients_waiting",
        "pgusher_client_connections",
    ] {
        eventually(name, || metric(proxy, name) == 0.0);
    }
}

/// PostgreSQL itself knows of nothing that is left.
pub fn nothing_is_left(world: &World) {
    let role = &world.role;
    let mut admin = world.admin.lock();
    for (what, sql) in [
        (
            "no session is in a transaction",
            format!(
                "select count(*) from pg_stat_activity where usename = '{role}' and state <> 'idle'"
            ),
        ),
        (
            "no session holds an advisory lock",
            format!(
                "select count(*) from pg_locks join pg_stat_activity using (pid) \
                 where locktype = 'advisory' and usename = '{role}'"
            ),
        ),
        (
            "there is no temporary relation",
            "select count(*) from pg_class where relpersistence = 't'".to_owned(),
        ),
    ] {
        eventually(what, || admin.value(&sql) == "0");
    }
}

/// Each server of the pool is as new.
pub fn all_servers_are_as_new(world: &World) {
    let model = Model::new(&world.role, world.defaults.clone());
    let clients = (0..world.pool_size).map(|_| {
        let mut client = world.connect.login();
        client.exec("begin");
        client
    });
    // All at once, so that each has another server.
    let mut clients: Vec<_> = clients.collect();
    for client in &mut clients {
        assert_eq!(client.value(&question()), model.all_settings());
        let traces = "select 'listens to ' || c from pg_listening_channels() c \
            union all select 'cursor ' || name from pg_cursors where name <> '' \
            union all select 'prepared ' || name from pg_prepared_statements where from_sql \
            union all select 'temporary ' || relname from pg_class where relnamespace = pg_my_temp_schema()";
        let traces = client.values(traces);
        assert!(traces.is_empty(), "{traces:?}");
        client.exec("commit");
    }
}

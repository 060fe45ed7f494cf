use super::{
    Account, Cluster, Folder, Listening, Progress, State, Target, certificate, check_logins,
    furnish, postgres::Server, proxy_config, replica, stray,
};
use crate::{
    control::Control,
    registry::{self, tenant_of},
    tenant::{Login, Placement, Tier},
};
use std::collections::HashMap;
use tokio_postgres::{Client, SimpleQueryMessage, error::SqlState};
use tokio_util::sync::CancellationToken;

type Places = HashMap<String, Placement>;

async fn enter(port: u16, login: &Login, database: &str) -> Result<Client, SqlState> {
    let target = Target {
        port,
        user: &login.role,
        password: login.password.as_ref().unwrap().expose(),
        database,
    };
    target.connect().await.map_err(|error| code(&error))
}

fn code(error: &tokio_postgres::Error) -> SqlState {
    error.code().expect("an error of the server").clone()
}

async fn refusal(client: &Client, sql: &str) -> SqlState {
    code(&client.batch_execute(sql).await.expect_err(sql))
}

async fn first_value(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.expect(sql);
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    row.expect(sql).to_owned()
}

/// Where the tenants with logins of their own are.
async fn places(control: &Control, state: &State) -> Places {
    let mut db = control.registry.pool.acquire().await.unwrap();
    let mut places = Places::new();
    for tenant in &state.tenants {
        let row = registry::tenant(&mut db, &tenant.id)
            .await
            .unwrap()
            .unwrap();
        let keys = registry::keys(&mut db, &tenant.id).await.unwrap();
        if row.variant == "own" {
            let made = tenant_of(&row, &keys, &control.registry.keyring);
            let made = made.unwrap().expect("it is active");
            places.insert(tenant.id.clone(), made.tenant.placement.clone());
        }
    }
    places
}

/// Each finds what it wrote, and nobody else's; nobody gets where others are alone.
async fn assert_tenants_are_apart(port: u16, places: &Places) {
    for (id, place) in places {
        let own = enter(port, &place.login, &place.database).await.unwrap();
        own.batch_execute(&furnish::sample(id)).await.unwrap();
    }
    for (id, place) in places {
        let own = enter(port, &place.login, &place.database).await.unwrap();
        let strange = format!("SELECT count(*) FROM accounts WHERE secret NOT LIKE '{id}: %'");
        assert_eq!(
            first_value(&own, "SELECT count(*) FROM accounts").await,
            "5"
        );
        assert_eq!(first_value(&own, &strange).await, "0", "{id}");
        let others = places
            .values()
            .filter(|other| other.database != place.database);
        let elsewhere = others.map(|other| &*other.database);
        for database in elsewhere.chain(["postgres", "template1", proxy_config::REGISTRY]) {
            let refused = enter(port, &place.login, database).await.err();
            assert!(refused.is_some(), "{id} enters {database}");
        }
        if place.tier != Tier::Database {
            for sql in [
                "CREATE TABLE public.t ()",
                "SELECT * FROM pg_stat_activity",
                "SELECT prosrc FROM pg_proc",
                "SELECT pg_advisory_lock(1)",
                "SELECT lo_create(0)",
            ] {
                let refused = refusal(&own, sql).await;
                assert_eq!(refused, SqlState::INSUFFICIENT_PRIVILEGE, "{id}: {sql}");
            }
        }
    }
}

/// The role behind a read-only key writes nothing, not even when it takes its session out of
/// read-only mode.
async fn assert_readers_only_read(port: u16, places: &Places) {
    for (id, place) in places {
        let login = place.read_only_login.as_ref().unwrap();
        let reader = enter(port, login, &place.database).await.unwrap();
        assert_eq!(
            first_value(&reader, "SELECT count(*) FROM orders").await,
            "12"
        );
        let refused = refusal(&reader, "DELETE FROM orders").await;
        assert_eq!(refused, SqlState::READ_ONLY_SQL_TRANSACTION);
        let read_write = "SET default_transaction_read_only = off";
        reader.batch_execute(read_write).await.unwrap();
        for sql in [
            "DELETE FROM orders",
            "INSERT INTO accounts VALUES (99, 'x')",
            "CREATE TABLE mine ()",
            "CREATE TEMP TABLE mine ()",
            "SELECT lo_create(0)",
        ] {
            let refused = refusal(&reader, sql).await;
            let is_refused = [
                SqlState::INSUFFICIENT_PRIVILEGE,
                SqlState::INVALID_SCHEMA_NAME,
            ]
            .contains(&refused);
            assert!(is_refused, "{id}: {sql}: {refused:?}");
        }
    }
}

async fn assert_writes_reach_the_replica(
    (primary, replica): (&Server, &Server),
    place: &Placement,
    stop: &CancellationToken,
) {
    let here = enter(primary.port, &place.login, &place.database)
        .await
        .unwrap();
    let insert = "INSERT INTO accounts VALUES (100, 'fresh')";
    here.batch_execute(insert).await.unwrap();
    replica::catch_up(primary, replica, stop).await.unwrap();
    let there = enter(replica.port, &place.login, &place.database)
        .await
        .unwrap();
    let select = "SELECT secret FROM accounts WHERE id = 100";
    assert_eq!(first_value(&there, select).await, "fresh");
    let refused = refusal(&there, insert).await;
    assert_eq!(refused, SqlState::READ_ONLY_SQL_TRANSACTION);
}

async fn assert_a_killed_server_comes_back(cluster: &mut Cluster<'_>, stop: &CancellationToken) {
    let (_, replica) = cluster.servers().unwrap();
    let port = replica.port;
    let client = replica.superuser().connect().await.unwrap();
    let directory = first_value(&client, "SHOW data_directory").await;
    let pid_file = std::fs::read_to_string(format!("{directory}/postmaster.pid")).unwrap();
    let pid = pid_file.lines().next().unwrap().parse().unwrap();
    stray::send("KILL", &[pid]).await;
    cluster.restart_next(stop).await.unwrap();
    let (primary, replica) = cluster.servers().unwrap();
    assert_eq!(replica.port, port);
    assert!(client.simple_query("SELECT 1").await.is_err());
    replica::catch_up(primary, replica, stop).await.unwrap();
}

/// The server knows no role of a tenant's own name, and nobody listens at port 1.
async fn assert_a_refusal_ends_the_first_start_alone(state: &mut State, port: u16) {
    state.is_provisioned = false;
    let refused = check_logins(state, port).await.unwrap_err();
    assert_eq!(refused.to_string(), "the proxy does not answer tenant acme");
    state.is_provisioned = true;
    check_logins(state, port).await.unwrap();
    check_logins(state, 1).await.unwrap_err();
}

#[tokio::test]
async fn tenants_are_apart_and_replicated_and_nothing_survives() {
    let account = Account::choose().await.unwrap();
    let folder = Folder::open(None, &account).await.unwrap();
    let path = folder.path().to_owned();
    let stop = CancellationToken::new();
    let mut cluster = Cluster::new(&folder, account);
    let progress = Progress::new();
    let mut state = cluster.up(&progress, &stop).await.unwrap();
    let (primary, replica) = cluster.servers().unwrap();
    let listening = Listening {
        proxy: 1,
        admin: 2,
        primary: primary.port,
        replica: replica.port,
    };
    furnish::write_files(&folder).unwrap();
    let certificate = certificate::ensure(folder.path()).unwrap();
    let config = folder.path().join("proxy.toml");
    proxy_config::write(&config, listening, &certificate, &state).unwrap();
    let control = furnish::control(&config).await.unwrap();
    furnish::furnish(&control, &mut state, (listening, &progress))
        .await
        .unwrap();
    assert_eq!(state.tenants.len(), 8);
    let places = places(&control, &state).await;
    assert_eq!(places.len(), 6);
    assert_tenants_are_apart(primary.port, &places).await;
    assert_readers_only_read(primary.port, &places).await;
    assert_writes_reach_the_replica((primary, replica), &places["initech"], &stop).await;
    control.registry.pool.close().await;
    assert_a_refusal_ends_the_first_start_alone(&mut state, primary.port).await;
    assert_a_killed_server_comes_back(&mut cluster, &stop).await;
    let running = stray::processes_in(&path).len();
    assert!(running > 8, "two servers with {running} processes");
    cluster.end().await;
    assert_eq!(stray::processes_in(&path), Vec::<u32>::new());
    folder.close();
    assert!(!path.exists());
}

use super::{
    Account, Cluster, Folder, Progress, State, Target, postgres::Server, replica,
    state::DemoTenant, stray,
};
use crate::tenant::Tier;
use tokio_postgres::{Client, SimpleQueryMessage, error::SqlState};
use tokio_util::sync::CancellationToken;

async fn enter(port: u16, tenant: &DemoTenant, database: &str) -> Result<Client, SqlState> {
    let target = Target {
        port,
        user: &tenant.owner.role,
        password: &tenant.owner.password,
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

fn of_tier(state: &State, tier: Tier) -> [&DemoTenant; 2] {
    let tenants: Vec<_> = state.tenants.iter().filter(|t| t.tier == tier).collect();
    tenants.try_into().expect("two tenants per tier")
}

/// In a database of its own a tenant is alone: nobody else gets in, nor does it get out.
async fn assert_databases_are_apart(port: u16, state: &State) {
    let [acme, globex] = of_tier(state, Tier::Database);
    let own = enter(port, acme, &acme.database).await.unwrap();
    let secret = first_value(&own, "SELECT secret FROM accounts").await;
    assert!(secret.starts_with("acme:"), "{secret}");
    for database in [
        &globex.database,
        &state.shared_database,
        "postgres",
        "template1",
    ] {
        let refused = enter(port, acme, database).await.err();
        assert_eq!(
            refused,
            Some(SqlState::INSUFFICIENT_PRIVILEGE),
            "{database}"
        );
    }
}

/// In the shared database a tenant reads its schema and nothing of its neighbour's.
async fn assert_schemas_are_apart(port: u16, state: &State) {
    let [initech, umbrella] = of_tier(state, Tier::Schema);
    let own = enter(port, initech, &initech.database).await.unwrap();
    let secret = first_value(&own, "SELECT secret FROM accounts").await;
    assert!(secret.starts_with("initech:"), "{secret}");
    let schema = &umbrella.schema;
    for sql in [
        format!("SELECT * FROM {schema}.accounts"),
        format!("INSERT INTO {schema}.accounts VALUES (99, 'x')"),
        format!("SET ROLE {}", umbrella.owner.role),
        "CREATE TABLE public.t ()".to_owned(),
        "SELECT * FROM pg_stat_activity".to_owned(),
        "SELECT prosrc FROM pg_proc".to_owned(),
        "SELECT pg_advisory_lock(1)".to_owned(),
        "SELECT lo_create(0)".to_owned(),
    ] {
        let refused = refusal(&own, &sql).await;
        assert_eq!(refused, SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
    }
}

/// The role behind a read-only key reads also what comes later, and writes nothing, not even when
/// it takes its session out of read-only mode.
async fn assert_readers_only_read(port: u16, state: &State) {
    for tenant in &state.tenants {
        let own = enter(port, tenant, &tenant.database).await.unwrap();
        let later = "CREATE TABLE later AS SELECT 7 AS n";
        own.batch_execute(later).await.unwrap();
        let target = Target {
            port,
            user: &tenant.reader.role,
            password: &tenant.reader.password,
            database: &tenant.database,
        };
        let reader = target.connect().await.unwrap();
        assert_eq!(first_value(&reader, "SELECT n FROM later").await, "7");
        let refused = refusal(&reader, "DELETE FROM orders").await;
        assert_eq!(refused, SqlState::READ_ONLY_SQL_TRANSACTION);
        let read_write = "SET default_transaction_read_only = off";
        reader.batch_execute(read_write).await.unwrap();
        for sql in [
            "DELETE FROM orders",
            "CREATE TABLE mine ()",
            "CREATE TEMP TABLE mine ()",
            "SELECT lo_create(0)",
        ] {
            let refused = refusal(&reader, sql).await;
            assert_eq!(refused, SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
        }
    }
}

async fn assert_writes_reach_the_replica(
    (primary, replica): (&Server, &Server),
    state: &State,
    stop: &CancellationToken,
) {
    let [tenant, _] = of_tier(state, Tier::Schema);
    let here = enter(primary.port, tenant, &tenant.database).await.unwrap();
    let insert = "INSERT INTO accounts VALUES (100, 'fresh')";
    here.batch_execute(insert).await.unwrap();
    replica::catch_up(primary, replica, stop).await.unwrap();
    let there = enter(replica.port, tenant, &tenant.database).await.unwrap();
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

#[tokio::test]
async fn tenants_are_apart_and_replicated_and_nothing_survives() {
    let account = Account::choose().await.unwrap();
    let folder = Folder::open(None, &account).await.unwrap();
    let path = folder.path().to_owned();
    let stop = CancellationToken::new();
    let mut cluster = Cluster::new(&folder, account);
    let state = cluster.up(&Progress::new(), &stop).await.unwrap();
    let (primary, replica) = cluster.servers().unwrap();
    assert_databases_are_apart(primary.port, &state).await;
    assert_schemas_are_apart(primary.port, &state).await;
    assert_readers_only_read(primary.port, &state).await;
    assert_writes_reach_the_replica((primary, replica), &state, &stop).await;
    assert_a_killed_server_comes_back(&mut cluster, &stop).await;
    let running = stray::processes_in(&path).len();
    assert!(running > 8, "two servers with {running} processes");
    cluster.end().await;
    assert_eq!(stray::processes_in(&path), Vec::<u32>::new());
    folder.close();
    assert!(!path.exists());
}

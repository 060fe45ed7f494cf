//! Primary and replica together: up, kept up, ended in order.

use anyhow::{Context as _, bail};
use std::{fs, path::Path};
use tokio_util::sync::CancellationToken;

use super::{
    Interrupted,
    account::Account,
    binaries::Binaries,
    folder::Folder,
    postgres::{self, Launch, Server},
    progress::{Progress, say},
    proxy_config::REGISTRY,
    replica, sql,
    state::State,
};

const CLUSTER: &str = include_str!("sql/cluster.sql");
/// Each on its own: CREATE DATABASE runs in no transaction.
const REGISTRY_DATABASE: [&str; 2] = [
    "CREATE DATABASE {registry} OWNER {registry}",
    "REVOKE ALL ON DATABASE {registry} FROM PUBLIC",
];

/// How often a server that dies is started again.
const RESTARTS_MAX: u32 = 20;

/// The private PostgreSQL cluster. Must be [ended](Cluster::end), whether it came up or not.
#[derive(Debug)]
pub(super) struct Cluster<'a> {
    folder: &'a Folder,
    account: Account,
    primary: Option<Server>,
    replica: Option<Server>,
}

impl<'a> Cluster<'a> {
    /// Nothing runs yet.
    pub(super) fn new(folder: &'a Folder, account: Account) -> Self {
        Self {
            folder,
            account,
            primary: None,
            replica: None,
        }
    }

    /// Brings both servers up with every tenant in place, and says what was made or found.
    pub(super) async fn up(
        &mut self,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> anyhow::Result<State> {
        let folder = self.folder;
        let found = folder.load()?;
        let mut state = if let Some(state) = found {
            state
        } else {
            for unfinished in ["primary", "replica"] {
                folder.remove_dir(unfinished)?;
            }
            let state = State::invent();
            folder.save(&state)?;
            state
        };
        let primary = self.launch("primary", &state).await?;
        let replica = self.launch("replica", &state).await?;
        if !replica.data.exists() {
            progress.step("making two data directories");
            postgres::init(folder, &primary, stop).await?;
            replica::copy(folder, &primary, &replica, stop).await?;
        }
        progress.step(&format!("starting PostgreSQL {}", primary.binaries.major));
        let primary = primary.start(state.ports.primary, stop).await?;
        state.ports.primary = Some(primary.port);
        let primary = self.primary.insert(primary);
        if !state.is_provisioned {
            prepare(primary, &state).await?;
        }
        progress.step("starting the replica");
        replica::follow(&replica, primary.port, &state.replication_password)?;
        let started = replica.start(state.ports.replica, stop).await?;
        state.ports.replica = Some(started.port);
        self.replica = Some(started);
        folder.save(&state)?;
        self.catch_up(stop).await?;
        Ok(state)
    }

    /// Waits until the replica has all that the primary has now.
    pub(super) async fn catch_up(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        let (primary, replica) = self.servers()?;
        replica::catch_up(primary, replica, stop).await
    }

    /// Primary and replica.
    pub(super) fn servers(&self) -> anyhow::Result<(&Server, &Server)> {
        let pair = self.primary.as_ref().zip(self.replica.as_ref());
        pair.context("PostgreSQL does not run")
    }

    /// Starts servers again that end by themselves, until `stop` or until one can't be started.
    pub(super) async fn keep_up(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        for _ in 0..RESTARTS_MAX {
            self.restart_next(stop).await?;
        }
        bail!("PostgreSQL ended {RESTARTS_MAX} times")
    }

    /// Waits until a server ends by itself, and starts it again.
    pub(super) async fn restart_next(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        let (Some(primary), Some(replica)) = (&mut self.primary, &mut self.replica) else {
            bail!("PostgreSQL does not run");
        };
        let (slot, name, status) = tokio::select! {
            status = primary.exited() => (&mut self.primary, "primary", status),
            status = replica.exited() => (&mut self.replica, "replica", status),
            () = stop.cancelled() => return Err(Interrupted.into()),
        };
        say(&format!("the {name} ended ({status}), starting it again"));
        if let Some(server) = slot.take() {
            *slot = Some(server.restart(stop).await?);
        }
        Ok(())
    }

    /// Ends the replica, then the primary.
    pub(super) async fn end(&mut self) {
        for server in [self.replica.take(), self.primary.take()]
            .into_iter()
            .flatten()
        {
            server.end().await;
        }
    }

    async fn launch(&self, name: &str, state: &State) -> anyhow::Result<Launch> {
        let data = self.folder.path().join(name);
        Ok(Launch {
            binaries: Binaries::find(&self.account, major_of(&data)).await?,
            account: self.account.clone(),
            log: self.folder.log(&format!("{name}.log"), &self.account)?,
            superuser_password: state.superuser_password.clone(),
            data,
        })
    }
}

/// Makes the logins of the replica and of the registry, and the registry's database.
async fn prepare(primary: &Server, state: &State) -> anyhow::Result<()> {
    let client = primary.superuser().connect().await?;
    let values = [
        ("replication_password", state.replication_password.as_str()),
        ("registry_password", &state.registry_password),
        ("registry", REGISTRY),
    ];
    sql::run(&client, "prepare the cluster", CLUSTER, &values).await?;
    for statement in REGISTRY_DATABASE {
        sql::run(&client, "make the registry's database", statement, &values).await?;
    }
    Ok(())
}

/// The major version that made a data directory, if it is there.
fn major_of(data: &Path) -> Option<u32> {
    let text = fs::read_to_string(data.join("PG_VERSION")).ok()?;
    text.trim().parse().ok()
}

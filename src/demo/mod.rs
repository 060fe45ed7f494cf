//! `pgusher demo`: a private PostgreSQL primary and streaming replica, tenants in every tier, and
//! the proxy before them. Ends when told to, and leaves nothing behind.

mod account;
mod binaries;
mod certificate;
mod cluster;
mod folder;
mod furnish;
mod opaque;
mod ports;
mod postgres;
mod progress;
mod proxy_config;
mod replica;
mod report;
mod signals;
mod sql;
mod state;
mod stray;
#[cfg(test)]
mod tests;
mod watchdog;

use anyhow::Context as _;
use std::{
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};
use tokio::{sync::oneshot, time::timeout};
use tokio_postgres::error::DbError;
use tokio_util::sync::CancellationToken;

use crate::app;
use account::Account;
use certificate::Certificate;
use cluster::Cluster;
use folder::Folder;
use progress::{Progress, say};
use proxy_config::Listening;
use report::Report;
use sql::Target;
use state::State;

/// Ports that the proxy and its admin listener take when they are free.
const PROXY_PORT: u16 = 6432;
const ADMIN_PORT: u16 = 6433;

/// The proxy's own shutdown timeout and a little.
const PROXY_END_DEADLINE: Duration = Duration::from_secs(10);

/// What `pgusher demo` takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DemoArgs {
    /// Keep data, keys and URLs in this folder [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Write how to connect into this file, once everything answers
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The proxy's port [default: 6432, or another when that is taken]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
}

/// Somebody wants the demo to end before it was up.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted;

/// Runs the demo until SIGINT, SIGTERM or SIGHUP. Needs a tokio runtime with I/O and time.
///
/// # Errors
/// When something can't be started or ends by itself. Everything that was started has ended by
/// then.
///
/// # Cancel safety
/// Not cancel safe: dropped, it leaves processes that end a moment later, and a temporary folder.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let stop = signals::on_end()?;
    let outcome = Box::pin(run_until(&args, &stop)).await;
    match outcome {
        Err(error) if error.is::<Interrupted>() => Ok(()),
        outcome => outcome,
    }
}

async fn run_until(args: &DemoArgs, stop: &CancellationToken) -> anyhow::Result<()> {
    if let Some(port) = args.port {
        ports::demand(port)?;
    }
    if let Some(path) = &args.json {
        folder::remove_file(path)?; // its presence says that everything answers
    }
    let account = Account::choose().await?;
    let folder = Folder::open(args.dir.as_deref(), &account).await?;
    let mut cluster = Cluster::new(&folder, account);
    let outcome = Box::pin(up_and_serve(args, &folder, &mut cluster, stop)).await;
    if stop.is_cancelled() {
        say("ending");
    }
    cluster.end().await;
    folder.close();
    outcome
}

async fn up_and_serve(
    args: &DemoArgs,
    folder: &Folder,
    cluster: &mut Cluster<'_>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let progress = Progress::new();
    let mut state = cluster.up(&progress, stop).await?;
    let certificate = certificate::ensure(folder.path())?;
    let listening = listening(args, &mut state, cluster)?;
    folder.save(&state)?;
    let config = folder.path().join("proxy.toml");
    furnish::write_files(folder)?;
    proxy_config::write(&config, listening, &certificate, &state)?;
    let is_new = !state.is_provisioned;
    let made = furnish_or_move(&config, &mut state, (listening, &progress));
    stop.run_until_cancelled(made).await.ok_or(Interrupted)??;
    progress.step("starting the proxy");

    let end_proxy = CancellationToken::new();
    let (ready, is_ready) = oneshot::channel();
    let mut proxy = pin!(app::run(
        &config,
        end_proxy.clone(),
        move |_: &app::Ready| {
            ready.send(()).unwrap_or(()); // nobody waits when the demo is about to end
        }
    ));
    let outcome = tokio::select! {
        outcome = &mut proxy => {
            say("the proxy ended");
            return outcome;
        }
        outcome = async {
            is_ready.await.context("the proxy did not start")?;
            check_logins(&state, listening.proxy).await?;
            if is_new {
                for tenant in &state.tenants {
                    furnish::fill(listening.proxy, tenant).await?;
                }
                state.is_provisioned = true;
                folder.save(&state)?;
            }
            cluster.catch_up(stop).await?;
            drop(progress);
            announce(args, &state, listening, cluster, certificate)?;
            cluster.keep_up(stop).await
        } => outcome,
        () = stop.cancelled() => Err(Interrupted.into()),
    };
    end_proxy.cancel();
    match timeout(PROXY_END_DEADLINE, proxy).await {
        Ok(ended) => outcome.and(ended),
        Err(_) => outcome.context("the proxy does not end"),
    }
}

/// Makes the tenants at the first start; later the registry only learns where the servers are now.
async fn furnish_or_move(
    config: &Path,
    state: &mut State,
    (listening, progress): (Listening, &Progress),
) -> anyhow::Result<()> {
    let control = furnish::control(config).await?;
    if state.is_provisioned {
        return furnish::move_cluster(&control, listening).await;
    }
    furnish::furnish(&control, state, (listening, progress)).await
}

/// Chooses the ports of the proxy: as demanded, as the last time, as usual, or any.
fn listening(
    args: &DemoArgs,
    state: &mut State,
    cluster: &Cluster<'_>,
) -> anyhow::Result<Listening> {
    let (primary, replica) = cluster.servers()?;
    let proxy = match args.port {
        Some(port) => ports::demand(port)?,
        None => ports::pick(state.ports.proxy.or(Some(PROXY_PORT)))?,
    };
    let admin = state.ports.admin.or(Some(ADMIN_PORT));
    let listening = Listening {
        proxy,
        admin: ports::pick(admin.filter(|admin| *admin != proxy))?,
        primary: primary.port,
        replica: replica.port,
    };
    state.ports.proxy = Some(listening.proxy);
    state.ports.admin = Some(listening.admin);
    Ok(listening)
}

/// Logs in with every key. Of tenants that were there before, a refusal is an answer: whoever tries things
/// out suspends them, and uses up their quotas.
async fn check_logins(state: &State, port: u16) -> anyhow::Result<()> {
    for tenant in &state.tenants {
        for key in [&tenant.key, &tenant.read_only_key] {
            let target = Target {
                port,
                user: &tenant.id,
                password: key,
                database: &tenant.id,
            };
            let check = async { postgres::answers(&target.connect().await?).await };
            let Err(error) = check.await else {
                continue;
            };
            match refusal(&error) {
                Some(why) if state.is_provisioned => {
                    say(&format!("tenant {} is refused: {why}", tenant.id));
                }
                _ => {
                    let what = format!("the proxy does not answer tenant {}", tenant.id);
                    return Err(error.context(what));
                }
            }
        }
    }
    Ok(())
}

/// What a server said, if it did.
fn refusal(error: &anyhow::Error) -> Option<&str> {
    let error = error.downcast_ref::<tokio_postgres::Error>()?;
    error.as_db_error().map(DbError::message)
}

fn announce(
    args: &DemoArgs,
    state: &State,
    listening: Listening,
    cluster: &Cluster<'_>,
    certificate: Certificate,
) -> anyhow::Result<()> {
    let ports = (listening.proxy, listening.admin);
    let report = Report::new(state, ports, cluster.servers()?, certificate.ca);
    if let Some(path) = &args.json {
        report.write_json(path)?;
    }
    // A reader that went away is no reason to end.
    if let Err(error) = report.print() {
        say(&format!("can't print the table: {error}"));
    }
    Ok(())
}

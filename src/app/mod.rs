//! The composition root: the only place that knows all parts.
//!
//! Three sets of threads: *relay* (sessions and servers), *login* (accept, TLS, SCRAM) and the
//! caller's own for everything slow (reload, admin HTTP, metrics).

mod admin;
mod combined;
mod follow;
mod gauges;
mod handover;
mod locks;
mod lost;
mod reload;
mod restart;
mod sockets;
mod tenant_series;
mod threads;
mod uses;

use crate::{
    admission::{Admission, Quotas},
    api::{self, Api},
    auth::{Authenticator, Decoy, Throttle},
    config::{Config, Proxy, TlsMode},
    control::Control,
    frontend::{Arrivals, Bound, Door, Frontend},
    net::BufferPool,
    pool::{self, Pools},
    sessions::{Order, Predecessors, Sessions, watchdog},
    telemetry::Metrics,
    tls::{HttpTls, ServerTls, TlsFiles},
    topology,
};
use anyhow::Context as _;
use arc_swap::ArcSwap;
use combined::Combined;
use handover::Heritage;
use restart::{Doors, Restarts};
use sockets::Label;
use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tenant_series::TenantSeries;
use threads::{RelayThreads, Threads};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// Small buffers kept for reuse: 4 MiB.
const SMALL_BUFFERS: usize = 512;

/// Large buffers kept for reuse: 2 MiB.
const LARGE_BUFFERS: usize = 32;

/// After the shutdown deadline: how long sessions may take to say so to their clients.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Where the proxy answers.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The listeners.
    pub listen: Vec<String>,
    /// The admin listener.
    pub admin: Option<SocketAddr>,
}

/// Runs the proxy until SIGTERM or SIGINT. A second signal ends it at once; SIGHUP reloads; SIGUSR2 has
/// another process take over.
///
/// # Errors
/// When the configuration is wrong or an address is taken.
pub fn serve(config: &Config, config_path: PathBuf) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let (reload, reloads) = mpsc::channel(1);
        let (restart, restarts) = mpsc::channel(1);
        tokio::spawn(follow_signals(shutdown.clone(), reload, restart)?);
        let heritage = Heritage::receive()?;
        let on_ready = |ready: &Ready| {
            tracing::info!(listen = ?ready.listen, admin = ?ready.admin, "ready");
            notify_service_manager(&[sd_notify::NotifyState::Ready]);
        };
        App::start(config, config_path, heritage)
            .await?
            .run(shutdown, (reloads, restarts), on_ready)
            .await
    });
    runtime.shutdown_background();
    result
}

/// Runs the proxy with this configuration until `shutdown` is cancelled; `on_ready` is called once
/// everything answers. A changed file is reloaded.
///
/// # Errors
/// When the configuration is wrong or an address is taken.
///
/// # Cancel safety
/// Dropping the future ends the proxy at once, with all its sessions.
pub async fn run(
    config_path: &Path,
    shutdown: CancellationToken,
    on_ready: impl FnOnce(&Ready) + Send,
) -> anyhow::Result<()> {
    let config = Config::load(config_path)?;
    // Nobody sends on them: only the file asks for a reload.
    let ((_reload, reloads), (_restart, restarts)) = (mpsc::channel(1), mpsc::channel(1));
    App::start(&config, config_path.to_owned(), Heritage::default())
        .await?
        .run(shutdown, (reloads, restarts), on_ready)
        .await
}

fn follow_signals(
    shutdown: CancellationToken,
    reload: mpsc::Sender<()>,
    restart: mpsc::Sender<()>,
) -> anyhow::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hup = signal(SignalKind::hangup())?;
    let mut usr2 = signal(SignalKind::user_defined2())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                _ = hup.recv() => {
                    reload.try_send(()).ok();
                    continue;
                }
                _ = usr2.recv() => {
                    restart.try_send(()).ok();
                    continue;
                }
            }
            if shutdown.is_cancelled() {
                tracing::warn!("second signal: ending at once");
                force_end();
            }
            shutdown.cancel();
        }
    })
}

#[expect(clippy::exit, reason = "the operator asked twice")]
fn force_end() {
    std::process::exit(1);
}

fn notify_service_manager(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager was not notified");
    }
}

/// Everything, put together.
struct App {
    config: Config,
    config_path: PathBuf,
    directory: Arc<Combined>,
    /// The use cases, where there is a registry.
    control: Option<Control>,
    /// Cancelled: the registry is followed no longer.
    end: DropGuard,
    frontend: Arc<Frontend>,
    listeners: Vec<(Label, Bound)>,
    admin: Option<(Label, TcpListener)>,
    admin_tls: Arc<HttpTls>,
    series: Arc<TenantSeries>,
    /// What the process before this one has left.
    heritage: Heritage,
    restart_limits: watch::Sender<restart::Limits>,
    relay: RelayThreads,
    login: Threads,
}

impl App {
    /// Binds everything, so that what is wrong shows before anything is served. Where there is a
    /// registry, it waits until that has answered, or not within a few seconds.
    async fn start(
        config: &Config,
        config_path: PathBuf,
        mut heritage: Heritage,
    ) -> anyhow::Result<Self> {
        let relay = RelayThreads::new(config.proxy.workers)?;
        let login = Threads::new("login", config.proxy.login_workers)?;
        let end = CancellationToken::new();
        let registry = follow::start(config, &end).await?;
        let directory = Arc::new(Combined::new(config, registry));
        let throttle = Throttle::new(config.proxy.auth_failures_per_minute);
        let tls = Arc::new(ServerTls::default());
        tls.load(tls_files(&config.proxy).as_ref())
            .context("proxy.tls_cert and tls_key")?;
        let uses = Arc::default();
        let control = admin::control(config, &directory, &uses);
        let frontend = Arc::new(Frontend {
            directory: directory.clone(),
            authenticator: Authenticator::new(directory.clone(), decoy(&config.proxy)?, throttle),
            admission: Admission::new(quotas(&config.proxy), uses),
            pools: Arc::new(Pools::default()),
            sessions: Arc::new(Sessions::default()),
            tls,
            buffers: BufferPool::new(SMALL_BUFFERS, LARGE_BUFFERS),
            door: ArcSwap::from_pointee(door(&config.proxy)),
            arrivals: Arrivals::default(),
            lanes: relay.lanes(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            retired: CancellationToken::new(),
            predecessors: Predecessors::new(std::mem::take(&mut heritage.predecessors)),
        });
        let sessions = Arc::clone(&frontend.sessions);
        if control.is_some() && config.usage.flush_interval.is_some() {
            sessions.usage.has_reader();
        }
        let tell = move |gone: &pool::Lost| lost::tell(&sessions, gone);
        frontend.pools.on_lost(tell);
        let admin_tls = HttpTls::read(config.admin.certificate.as_ref());
        let admin_tls = Arc::new(admin_tls.context("admin.tls_cert and tls_key")?);
        // Clients are let in last: whoever reaches the proxy finds its admin listener there too.
        let handed = &mut heritage.handed;
        let admin = config.admin.listen;
        let admin = admin.map(|address| sockets::listen_for_admin(address, handed));
        let admin = admin.transpose()?;
        login.spawn(frontend.arrivals.drive());
        let series = TenantSeries::new(&frontend, config.admin.tenant_series);
        let listeners = login.enter(|| sockets::listen(&config.proxy, handed))?;
        Ok(Self {
            config: config.clone(),
            config_path,
            directory,
            control,
            end: end.drop_guard(),
            frontend,
            listeners,
            admin,
            admin_tls,
            series: Arc::new(series),
            heritage,
            restart_limits: watch::Sender::new((&config.proxy).into()),
            relay,
            login,
        })
    }

    async fn run(
        mut self,
        shutdown: CancellationToken,
        (reloads, restarts): (mpsc::Receiver<()>, mpsc::Receiver<()>),
        on_ready: impl FnOnce(&Ready) + Send,
    ) -> anyhow::Result<()> {
        let succession = std::mem::take(&mut self.heritage)
            .take_over(&shutdown)
            .await?;
        let restarts = Restarts::new(restarts, &self)?;
        let sessions = Arc::clone(&self.frontend.sessions);
        self.relay.spawn(watchdog::run(sessions));
        let pools = Arc::clone(&self.frontend.pools);
        self.relay.spawn(pool::janitor(pools));
        let listeners = std::mem::take(&mut self.listeners);
        let addresses = listeners.iter().map(|(_, bound)| bound.address());
        let listen = addresses.collect();
        let doors = Doors::default();
        for (_, listener) in listeners {
            let serving = listener.serve(Arc::clone(&self.frontend), doors.logins.clone());
            self.login.spawn(doors.listeners.track_future(serving));
        }
        let ended = CancellationToken::new();
        let admin = self.serve_admin(&ended)?;
        on_ready(&Ready { listen, admin });
        succession.serving().await;
        let follow =
            follow::follow_registry(Arc::clone(&self.directory), Arc::clone(&self.frontend));
        tokio::spawn(ended.clone().run_until_cancelled_owned(follow));
        let uses = self.control.clone().map(|control| {
            uses::Recorder::start(control, Arc::clone(&self.frontend), self.config.usage)
        });
        self.look_after_tenants(&ended);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.follow_changes(reloads) => {}
            () = restarts.leave(doors) => {}
        }
        self.drain().await;
        if let Some(uses) = uses {
            uses.end().await;
        }
        ended.cancel();
        drop(self.end);
        Ok(())
    }

    /// Has the control plane do what it does from time to time, until it is `ended`.
    fn look_after_tenants(&self, ended: &CancellationToken) {
        let Some((control, registry)) = self.control.clone().zip(self.config.registry.as_ref())
        else {
            return;
        };
        if let Some(pause) = registry.sweep_interval {
            let sweeping = control.clone().sweep_every(pause);
            let until = self.until_retired(ended);
            tokio::spawn(until.run_until_cancelled_owned(sweeping));
        }
        if let Some(pause) = self.config.usage.storage_interval {
            let measuring = control.clone().measure_storage_every(pause);
            let until = self.until_retired(ended);
            tokio::spawn(until.run_until_cancelled_owned(measuring));
        }
        if let Some(pause) = registry.lock_watch_interval {
            let officer = Arc::new(locks::LockOfficer {
                frontend: Arc::clone(&self.frontend),
                penalty: registry.lock_watch_penalty,
            });
            let watching = control.watch_locks(pause, officer);
            tokio::spawn(ended.clone().run_until_cancelled_owned(watching));
        }
    }

    fn serve_admin(&mut self, ended: &CancellationToken) -> anyhow::Result<Option<SocketAddr>> {
        let Ok(metrics) = Metrics::install_recorder() else {
            // Another proxy in this process (a demo's second start, a test) has the recorder.
            return Ok(None);
        };
        topology::describe();
        metrics.register(Arc::new(gauges::Gauges(Arc::clone(&self.frontend))));
        metrics.register(self.series.clone());
        tokio::spawn(Arc::clone(&metrics).upkeep(ended.clone()));
        let Some((_, listener)) = self.admin.take() else {
            return Ok(None);
        };
        let address = listener.local_addr()?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let closing = self.frontend.closing.clone();
        let api = Api {
            metrics,
            is_ready: Arc::new(move || !closing.is_cancelled()),
            control: self.control.clone(),
            live: Arc::new(admin::LiveNumbers(Arc::clone(&self.frontend))),
        };
        let (end, tls) = (self.until_retired(ended), Arc::clone(&self.admin_tls));
        tokio::spawn(async move {
            if let Err(error) = api::serve(listener, tls, api, end).await {
                tracing::error!(%error, "the admin listener failed");
            }
        });
        Ok(Some(address))
    }

    /// Stops accepting, lets transactions end, then ends what is left.
    async fn drain(&self) {
        let frontend = &self.frontend;
        if !frontend.retired.is_cancelled() {
            notify_service_manager(&[sd_notify::NotifyState::Stopping]);
        }
        tracing::info!(clients = frontend.sessions.count(), "shutting down");
        frontend.closing.cancel();
        frontend.tasks.close();
        frontend.sessions.give_all(Order::Drain);
        let timeout = self.config.proxy.shutdown_timeout;
        if tokio::time::timeout(timeout, frontend.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                clients = frontend.sessions.count(),
                "shutdown_timeout has passed"
            );
            frontend.sessions.give_all(Order::Shutdown);
            drop(tokio::time::timeout(LAST_WORDS, frontend.tasks.wait()).await);
        }
        tracing::info!("ended");
    }
}

fn decoy(proxy: &Proxy) -> anyhow::Result<Decoy> {
    use sha2::{Digest as _, Sha256};
    let Some(path) = &proxy.auth_seed_file else {
        return Ok(Decoy::random());
    };
    let seed =
        std::fs::read(path).with_context(|| format!("proxy.auth_seed_file {}", path.display()))?;
    Ok(Decoy::new(Sha256::digest(&seed).into()))
}

fn quotas(proxy: &Proxy) -> Quotas {
    Quotas {
        max_client_connections: proxy.max_client_connections,
        reserved_client_connections: proxy.reserved_client_connections,
        operator_addresses: proxy.operator_addresses.clone(),
    }
}

fn door(proxy: &Proxy) -> Door {
    Door {
        login_timeout: proxy.login_timeout,
        tls_offered: proxy.tls.mode != TlsMode::Disable,
        tls_required: proxy.tls.mode == TlsMode::Require,
        allow_plaintext_password: proxy.allow_plaintext_password,
    }
}

fn tls_files(proxy: &Proxy) -> Option<TlsFiles> {
    let (certificate, key) = proxy.tls.certificate.clone()?;
    Some(TlsFiles {
        certificate,
        key,
        client_ca: proxy.tls.client_ca.clone(),
        client_certificate_required: proxy.tls.client_certificate_required,
    })
}

//! A set of threads with a purpose.

use crate::pool::{Lane, Lanes, Rota};
use std::sync::Arc;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

/// A relaying thread that is always busy looks at its sockets after so many polls.
const EVENT_INTERVAL: u32 = 16;

/// A runtime that ends in the background when it is dropped, wherever that is.
pub(super) struct Threads(Option<Runtime>);

impl Threads {
    pub(super) fn new(name: &str, count: usize) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(count)
            .thread_name(name)
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs something that needs to know its runtime.
    pub(super) fn enter<T>(&self, run: impl FnOnce() -> T) -> T {
        let _guard = self.runtime().enter();
        run()
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime().spawn(task);
    }

    fn runtime(&self) -> &Runtime {
        self.0
            .as_ref()
            .expect("the runtime is there until it is dropped")
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The relaying threads: a runtime of its own on each, so that what a tenant does stays on one.
/// They end in the background when this is dropped.
pub(super) struct RelayThreads {
    lanes: Lanes,
    first: Handle,
    end: CancellationToken,
}

impl RelayThreads {
    pub(super) fn new(count: usize) -> std::io::Result<Self> {
        let end = CancellationToken::new();
        let first = Self::start(0, end.clone())?;
        let others = (1..count).map(|number| Self::start(number, end.clone()));
        let lanes = Lanes::new(first.clone(), others.collect::<Result<_, _>>()?);
        let first = first.handle().clone();
        Ok(Self { lanes, first, end })
    }

    fn start(number: usize, end: CancellationToken) -> std::io::Result<Lane> {
        let turns = Arc::new(Rota::default());
        let rests = Arc::clone(&turns);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .event_interval(EVENT_INTERVAL)
            .on_thread_park(move || rests.rests())
            .build()?;
        let lane = Lane::new(runtime.handle().clone(), turns);
        std::thread::Builder::new()
            .name(format!("relay-{number}"))
            .spawn(move || runtime.block_on(end.cancelled()))?;
        Ok(lane)
    }

    pub(super) fn lanes(&self) -> Lanes {
        self.lanes.clone()
    }

    /// Runs what looks after all tenants on the first thread.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.first.spawn(task);
    }
}

impl Drop for RelayThreads {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

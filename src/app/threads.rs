//! A set of threads with a purpose.

use tokio::runtime::{Builder, Handle, Runtime};

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

    pub(super) fn handle(&self) -> Handle {
        self.runtime().handle().clone()
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

//! A slot between two tenants, or two turns of one.

use super::{
    budget::Place,
    dialer::{Pooled, has_something_to_say},
};
use crate::upstream::{Server, Welcome};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Instant,
};
use tokio::runtime;

/// A slot that serves nobody just now, but is bound still.
pub(super) struct Idle {
    pub(super) server: Server,
    pub(super) welcome: Arc<Welcome>,
    pub(super) expires: Option<Instant>,
    pub(super) place: Place,
    pub(super) made: Made,
    /// The thread that last used it, if that is known.
    pub(super) lane: Option<runtime::Id>,
}

/// A slot that exists.
#[derive(Debug)]
pub(super) struct Made(pub(super) Arc<AtomicUsize>);

impl Drop for Made {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Idle {
    /// What was lent until now.
    pub(super) fn of(pooled: Pooled) -> Option<Self> {
        Some(Self {
            server: pooled.server,
            welcome: pooled.welcome,
            expires: pooled.expires,
            place: pooled.place,
            made: pooled.lent?.made,
            // Nobody has used it here yet.
            lane: None,
        })
    }

    pub(super) fn is_old(&self) -> bool {
        self.expires.is_some_and(|at| Instant::now() >= at)
    }

    /// Looks whether it may be lent, and moves it to this thread.
    ///
    /// # Cancel safety
    /// Cancel safe: it stays what it was.
    pub(super) async fn is_usable(&mut self) -> bool {
        if !self.server.is_clean() || self.is_old() {
            return false;
        }
        // Before it is moved: where it was, what came is known without a system call; here nothing is yet.
        !has_something_to_say(&mut self.server).await && self.attach().is_ok()
    }

    fn attach(&mut self) -> io::Result<()> {
        let here = Some(runtime::Handle::current().id());
        if self.lane != here {
            self.server.move_here()?;
            self.lane = here;
        }
        Ok(())
    }
}

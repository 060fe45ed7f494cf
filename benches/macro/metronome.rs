//! How long the machine stood still: what a virtual machine is not given looks like a slow answer.
//! On a busy one it waits for a core, too, some milliseconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::process::pause;

const BEAT: Duration = Duration::from_millis(5);

/// Beats until it is asked.
#[derive(Debug)]
pub(crate) struct Metronome {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Metronome {
    pub(crate) fn start() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = is_over.clone();
        let thread = thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !ends.load(Ordering::Relaxed) {
                let began = Instant::now();
                pause(BEAT);
                longest = longest.max(began.elapsed().saturating_sub(BEAT));
            }
            longest
        });
        Self { is_over, thread }
    }

    /// By how much the latest beat was late, in milliseconds.
    pub(crate) fn end(self) -> Result<f64> {
        self.is_over.store(true, Ordering::Relaxed);
        let longest = self.thread.join();
        let longest = longest.map_err(|_panic| anyhow!("the metronome has panicked"))?;
        Ok(longest.as_secs_f64() * 1e3)
    }
}

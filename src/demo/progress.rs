//! What happens, while it happens: a spinner on a terminal, plain lines elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::{IsTerminal as _, stderr},
    time::Duration,
};

/// Progress on standard error, as long as it lives.
#[derive(Debug)]
pub(super) struct Progress {
    spinner: Option<ProgressBar>,
}

impl Progress {
    /// Nothing shown yet.
    pub(super) fn new() -> Self {
        let spinner = stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        Self { spinner }
    }

    /// What is being done now.
    pub(super) fn step(&self, text: &str) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(text.to_owned()),
            None => say(text),
        }
    }
}

/// Takes the spinner away.
impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

/// A line that stays.
#[expect(
    clippy::print_stderr,
    reason = "the one place that speaks to whoever started the demo"
)]
pub(super) fn say(text: &str) {
    eprintln!("pgusher demo: {text}");
}

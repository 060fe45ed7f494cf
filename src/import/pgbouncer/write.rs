//! The text of a `proxy.toml`.

use std::{fmt::Write as _, path::Path, time::Duration};

/// A text in the making. Values are written by the `toml` crate.
pub(super) struct Toml(String);

impl Toml {
    pub(super) fn new(from: &Path) -> Self {
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        let name = name.replace(char::is_control, "?");
        Self(format!(
            "# Imported from {name}. It holds passwords: chmod 600.\n"
        ))
    }

    pub(super) fn finish(self) -> String {
        self.0
    }

    /// `[proxy]`, `[[tenants]]`.
    pub(super) fn section(&mut self, head: &str) {
        self.line(&format!("\n{head}"));
    }

    pub(super) fn comment(&mut self, text: &str) {
        self.line(&format!("# {}", text.replace(char::is_control, "?")));
    }

    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.value(key, &value.into());
    }

    pub(super) fn number(&mut self, key: &str, value: u64) {
        self.line(&format!("{key} = {value}"));
    }

    pub(super) fn time(&mut self, key: &str, time: Duration) {
        // "0s", "1h", "1s 500ms"
        self.text(key, &humantime::format_duration(time).to_string());
    }

    pub(super) fn value(&mut self, key: &str, value: &toml::Value) {
        self.line(&format!("{key} = {value}"));
    }

    pub(super) fn line(&mut self, line: &str) {
        // Writing to a String does not fail.
        writeln!(self.0, "{line}").ok();
    }
}

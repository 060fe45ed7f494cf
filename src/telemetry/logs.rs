//! Log lines on stderr, as text for people or JSON for machines.
//!
//! stdout is for data. What must never be in a line: SQL text, parameters, keys, passwords.

use crate::config::{Log, LogFormat};
use std::io::IsTerminal;
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, filter,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    registry::Registry,
    util::{SubscriberInitExt, TryInitError},
};

/// The environment variable that overrides `log_level`: a level, or directives such as
/// `info,pgusher::pool=debug`.
pub const ENVIRONMENT: &str = "PGUSHER_LOG";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `PGUSHER_LOG` is no filter.
    #[error("PGUSHER_LOG={value:?} is no filter; use a level, or \"info,pgusher::pool=debug\"")]
    Filter {
        /// As given.
        value: String,
        /// Why not.
        #[source]
        source: filter::ParseError,
    },
    /// Something else in the process has set up a log already.
    #[error("the log is set up already")]
    Twice(#[from] TryInitError),
}

/// Starts logging for the whole process.
///
/// # Errors
/// [`LogError`] when `PGUSHER_LOG` can't be read, or on a second call.
pub fn init(log: &Log) -> Result<(), LogError> {
    let value = std::env::var(ENVIRONMENT).ok();
    let filter = filter(*log, value.as_deref())?;
    let is_terminal = std::io::stderr().is_terminal();
    subscriber(log.format, filter, is_terminal, std::io::stderr).try_init()?;
    Ok(())
}

/// What PostgreSQL remarks on our own statements in the registry and in clusters ("relation already
/// exists, skipping"): for finding out only.
const NOTICES: &str = "sqlx::postgres::notice=off";
/// The statements themselves: never.
const STATEMENTS: &str = "sqlx::query=off";

fn filter(log: Log, value: Option<&str>) -> Result<EnvFilter, LogError> {
    let given = value.filter(|value| !value.trim().is_empty());
    let text = given.unwrap_or(log.level.as_str());
    let wrong = |source| LogError::Filter {
        value: text.to_owned(),
        source,
    };
    let is_verbose = text
        .split(',')
        .any(|part| matches!(part.trim(), "debug" | "trace") || part.contains("sqlx"));
    let mut filter = EnvFilter::try_new(text).map_err(wrong)?;
    if !is_verbose {
        filter = filter.add_directive(NOTICES.parse().map_err(wrong)?);
    }
    Ok(filter.add_directive(STATEMENTS.parse().map_err(wrong)?))
}

fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    is_terminal: bool,
    writer: W,
) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Text => lines.with_ansi(is_terminal).boxed(),
        LogFormat::Json => lines.with_ansi(false).json().flatten_event(true).boxed(),
    };
    // Before all layers, not around this one: a layer's own filter keeps what it said last for each
    // thread, and lines were missing behind what sqlx asked of it.
    Registry::default().with(lines).with(filter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogLevel;
    use parking_lot::Mutex;
    use std::{io, sync::Arc};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, value: Option<&str>) -> String {
        let log = Log {
            format,
            level: LogLevel::Warn,
        };
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let filter = filter(log, value).unwrap();
        let subscriber = subscriber(format, filter, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(tenant = "acme", "client connected");
            tracing::warn!(tenant = "acme", "server refused");
            tracing::info!(target: "sqlx::postgres::notice", "a remark");
            tracing::warn!(target: "sqlx::query", "a statement");
        });
        let bytes = buffer.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_level_of_the_file_holds_unless_the_environment_says_otherwise() {
        let text = logged(LogFormat::Text, None);
        assert!(
            text.contains("server refused") && !text.contains("client connected"),
            "{text}"
        );
        let text = logged(LogFormat::Text, Some(" "));
        assert!(!text.contains("client connected"), "{text}");
        let text = logged(LogFormat::Text, Some("info"));
        assert!(text.contains("client connected"), "{text}");
        let text = logged(LogFormat::Text, Some("error,pgusher::telemetry=info"));
        assert!(text.contains("client connected"), "{text}");
    }

    #[test]
    fn what_postgresql_remarks_is_for_finding_out_and_no_statement_is_logged() {
        let text = logged(LogFormat::Text, Some("info"));
        assert!(!text.contains("a remark"), "{text}");
        for value in ["debug", "info,sqlx=info", "trace,sqlx::query=trace"] {
            let text = logged(LogFormat::Text, Some(value));
            assert!(text.contains("a remark"), "{value}: {text}");
            assert!(!text.contains("a statement"), "{value}: {text}");
        }
    }

    #[test]
    fn a_json_line_has_its_fields_on_top() {
        let text = logged(LogFormat::Json, None);
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["tenant"], "acme");
        assert_eq!(line["message"], "server refused");
        assert_eq!(line["level"], "WARN");
    }

    #[test]
    fn a_broken_filter_is_an_error_that_names_it() {
        let log = Log {
            format: LogFormat::Text,
            level: LogLevel::Info,
        };
        let error = filter(log, Some("pgusher=loud")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("PGUSHER_LOG=\"pgusher=loud\""),
            "{error}"
        );
    }
}

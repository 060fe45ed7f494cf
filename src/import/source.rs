//! Another system's tables, whatever columns its version has.

use super::ImportError;
use crate::tenant::Secret;
use serde_json::{Map, Value};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};
use std::{collections::HashSet, str::FromStr as _, time::Duration};

/// For connecting and for each query.
const TIME_MAX: Duration = Duration::from_secs(30);

/// A connection that only reads.
pub(super) struct Source(PgConnection);

impl Source {
    /// Connects. The message never shows the URL.
    ///
    /// # Errors
    /// [`ImportError::Refused`] or [`ImportError::Source`].
    pub(super) async fn open(url: &Secret) -> Result<Self, ImportError> {
        let text = url.expose();
        if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
            return Err(ImportError::Refused(
                "--from must be postgres://user@host:port/database; a store in MySQL or MariaDB has to be moved to PostgreSQL first (pgloader does)".to_owned(),
            ));
        }
        let options = PgConnectOptions::from_str(text).map_err(|_error| {
            ImportError::Refused(
                "--from can't be read; write postgres://user@host:port/database".to_owned(),
            )
        })?;
        let options = options.application_name("pgusher import").options([
            ("default_transaction_read_only", "on"),
            ("statement_timeout", "30s"),
        ]);
        let connection = within(options.connect()).await?;
        Ok(Self(connection))
    }

    /// The rows of a query, each a JSON object.
    pub(super) async fn rows(&mut self, sql: &'static str) -> Result<Vec<Value>, ImportError> {
        within(sqlx::query_scalar(sql).fetch_all(&mut self.0)).await
    }

    /// The names of time zones that PostgreSQL knows.
    pub(super) async fn time_zones(&mut self) -> Result<HashSet<String>, ImportError> {
        let query = sqlx::query_scalar("SELECT name FROM pg_timezone_names");
        let names: Vec<String> = within(query.fetch_all(&mut self.0)).await?;
        Ok(names.into_iter().collect())
    }

    pub(super) async fn close(self) {
        // It only read: a connection that ends otherwise is as good.
        within(self.0.close()).await.ok();
    }
}

async fn within<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, ImportError> {
    let done = tokio::time::timeout(TIME_MAX, work).await;
    done.unwrap_or(Err(sqlx::Error::PoolTimedOut))
        .map_err(ImportError::Source)
}

/// A row by the names of its columns. A column that is not there is as one that is empty.
#[derive(Default)]
pub(super) struct Columns(Map<String, Value>);

impl Columns {
    pub(super) fn of(value: Option<&Value>) -> Self {
        Self(
            value
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
        )
    }

    /// A text, a number or a truth as text; `None` for NULL and for nothing but spaces.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let text = match self.0.get(name)? {
            Value::String(text) => text.trim().to_owned(),
            Value::Null => return None,
            other => other.to_string(),
        };
        (!text.is_empty()).then_some(text)
    }

    /// A password: spaces in it count.
    pub(super) fn secret(&self, name: &str) -> Option<Secret> {
        let text = self.0.get(name)?.as_str()?;
        (!text.is_empty()).then(|| Secret::new(text.to_owned()))
    }

    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }

    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        match self.text(name)?.as_str() {
            "1" | "true" | "t" => Some(true),
            "0" | "false" | "f" => Some(false),
            _ => None,
        }
    }

    pub(super) fn value(&self, name: &str) -> Option<Value> {
        self.0.get(name).filter(|value| !value.is_null()).cloned()
    }

    /// The columns that are none of these.
    pub(super) fn others<'a>(&'a self, known: &'a [&str]) -> impl Iterator<Item = &'a String> {
        self.0.keys().filter(|name| !known.contains(&name.as_str()))
    }
}

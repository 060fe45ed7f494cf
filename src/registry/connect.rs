//! A connection to the registry of one's own, and who has to wait for one.

use super::{Registry, RegistryError};
use sqlx::{Connection as _, PgConnection, error::DatabaseError, postgres::PgConnectOptions};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long one login may take.
const LOGIN_TIME_MAX: Duration = Duration::from_secs(15);

/// The pause behind a login for which PostgreSQL had no place: at first, and at last.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Pauses that grow, no two of them alike, so that those who met don't meet again.
pub struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(PAUSE)
    }
}

impl Pauses {
    /// Waits a little longer than the last time.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) {
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSE_MAX);
        sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
    }
}

impl Registry {
    /// A connection of one's own, beside the pool. While PostgreSQL says that it has no place
    /// (53300) or starts (57P03), it is asked again, for `patience`.
    ///
    /// # Errors
    /// [`RegistryError::Unanswered`], [`RegistryError::Full`], or what PostgreSQL says.
    ///
    /// # Cancel safety
    /// Cancel safe: the connection ends.
    pub async fn connect(&self, patience: Duration) -> Result<PgConnection, RegistryError> {
        let options = self.pool.connect_options();
        let give_up = Instant::now() + patience;
        let mut pauses = Pauses::default();
        loop {
            let login = PgConnection::connect_with(&options);
            let Ok(done) = timeout(LOGIN_TIME_MAX, login).await else {
                let limit = humantime::format_duration(LOGIN_TIME_MAX);
                return Err(self.unanswered(format!("no login within {limit}")));
            };
            match done {
                Ok(db) => return Ok(db),
                Err(error) if is_full(&error) => {
                    if Instant::now() >= give_up {
                        return Err(RegistryError::Full {
                            address: address(&options),
                            reason: error.to_string(),
                            patience,
                        });
                    }
                    pauses.next().await;
                }
                Err(error @ sqlx::Error::Database(_)) => return Err(error.into()),
                Err(error) => return Err(self.unanswered(error.to_string())),
            }
        }
    }

    /// It does not answer.
    fn unanswered(&self, reason: String) -> RegistryError {
        RegistryError::Unanswered {
            address: address(&self.pool.connect_options()),
            reason,
        }
    }

    /// What is told of an error to who only knows the registry's address: where it does not answer.
    #[must_use]
    pub fn explained(&self, error: RegistryError) -> RegistryError {
        match error {
            RegistryError::Database(error) if !matches!(error, sqlx::Error::Database(_)) => {
                let error = RegistryError::Database(error);
                if !error.is_unavailable() {
                    return error;
                }
                let reason = match &error {
                    RegistryError::Database(sqlx::Error::PoolTimedOut) => {
                        "no connection in time".to_owned()
                    }
                    RegistryError::Database(cause) => cause.to_string(),
                    other => other.to_string(),
                };
                self.unanswered(reason)
            }
            other => other,
        }
    }
}

/// Whether PostgreSQL has no place for a connection right now, or is starting.
pub fn is_full(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| code == "53300" || code == "57P03")
}

/// Where the registry is; nothing else of its URL.
fn address(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

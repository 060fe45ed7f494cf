//! A connection to a database of the cluster, and the statements that are run there.

use super::{Admin, ProvisioningError};
use crate::tenant::{Address, Login, Secret, UpstreamTls};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, FromRow, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgRow, PgSslMode},
};
use std::{path::Path, time::Duration};

/// How long one statement may take, locks that it waits for included. PostgreSQL ends it; a
/// connection that is dead is given up a little later.
pub(super) const STATEMENT_TIME_MAX: Duration = Duration::from_mins(1);
/// How often a statement is tried that met somebody else's change of the same row of a catalogue.
const TRIES_MAX: u32 = 20;
/// While PostgreSQL has no place for a connection (53300, 57P03): how long it is asked again, and how
/// often in milliseconds, so that those who met don't meet again.
const FULL_TIME_MAX: Duration = Duration::from_secs(30);
const FULL_PAUSE: std::ops::Range<u64> = 50..300;
/// The database that every cluster has.
pub(super) const MAINTENANCE: &str = "postgres";

/// A connection as somebody to one database. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) db: PgConnection,
    pub(super) address: String,
}

impl Admin {
    /// Logs in as the admin.
    ///
    /// # Errors
    /// [`ProvisioningError::Unreachable`], [`ProvisioningError::NotLetIn`], or what PostgreSQL says
    /// (3D000: there is no such database).
    ///
    /// # Cancel safety
    /// Cancel safe: the connection ends.
    pub(super) async fn connect(&self, database: &str) -> Result<Session, ProvisioningError> {
        let options = self.options(&self.role, self.password.as_ref(), database);
        self.log_in(&self.role, options).await
    }

    /// Logs in as the admin; `None` when there is no such database, or it lets nobody in yet.
    pub(super) async fn connect_if_there(
        &self,
        database: &str,
    ) -> Result<Option<Session>, ProvisioningError> {
        match self.connect(database).await {
            Ok(session) => Ok(Some(session)),
            Err(error) if matches!(error.code(), Some("3D000" | "55000")) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Logs in as a tenant's role, as the proxy does.
    pub(super) async fn connect_as(
        &self,
        login: &Login,
        database: &str,
    ) -> Result<Session, ProvisioningError> {
        let options = self.options(&login.role, login.password.as_ref(), database);
        self.log_in(&login.role, options).await
    }

    async fn log_in(
        &self,
        role: &str,
        options: PgConnectOptions,
    ) -> Result<Session, ProvisioningError> {
        let address = self.address.to_string();
        let unreachable = |reason: String| ProvisioningError::Unreachable {
            address: address.clone(),
            reason,
        };
        let give_up = tokio::time::Instant::now() + FULL_TIME_MAX;
        let connected = loop {
            let connecting = tokio::time::timeout(self.connect_timeout, options.connect());
            let connected = connecting.await.map_err(|_elapsed| {
                let limit = humantime::format_duration(self.connect_timeout);
                unreachable(format!("no login within {limit}"))
            })?;
            match connected {
                Err(error) if is_full(&error) && tokio::time::Instant::now() < give_up => {
                    let pause = Duration::from_millis(rand::random_range(FULL_PAUSE));
                    tokio::time::sleep(pause).await;
                }
                other => break other,
            }
        };
        let db = connected.map_err(|error| match &error {
            sqlx::Error::Database(refusal) => {
                let code = refusal.code().unwrap_or_default().into_owned();
                let message = refusal.message().to_owned();
                if matches!(code.as_str(), "28P01" | "28000") {
                    ProvisioningError::NotLetIn {
                        address: address.clone(),
                        role: role.to_owned(),
                        code,
                        message,
                    }
                } else {
                    let step = "log in";
                    ProvisioningError::Refused {
                        step,
                        code,
                        message,
                    }
                }
            }
            other => unreachable(other.to_string()),
        })?;
        Ok(Session { db, address })
    }

    fn options(&self, role: &str, password: Option<&Secret>, database: &str) -> PgConnectOptions {
        let limit = STATEMENT_TIME_MAX.as_millis().to_string();
        let mut options = PgConnectOptions::new_without_pgpass()
            .username(role)
            .password(password.map_or("", Secret::expose))
            .database(database)
            .application_name("pgusher")
            // Nothing of a tenant's is found by a name that is not ours.
            .options([("statement_timeout", limit.as_str()), ("search_path", "")])
            .disable_statement_logging();
        options = match &self.address {
            Address::Tcp { host, port } => options.host(host).port(*port),
            Address::Unix(path) => {
                let (folder, port) = socket(path);
                options.socket(folder).port(port)
            }
        };
        let (mode, ca) = match &self.tls {
            _ if matches!(self.address, Address::Unix(_)) => (PgSslMode::Disable, &None),
            UpstreamTls::Disable => (PgSslMode::Disable, &None),
            UpstreamTls::Require => (PgSslMode::Require, &None),
            UpstreamTls::VerifyCa(ca) => (PgSslMode::VerifyCa, ca),
            UpstreamTls::VerifyFull(ca) => (PgSslMode::VerifyFull, ca),
        };
        options = options.ssl_mode(mode);
        match ca {
            Some(ca) => options.ssl_root_cert(ca),
            None => options,
        }
    }
}

/// The folder and the port of a socket file, such as `/run/postgresql/.s.PGSQL.5432`.
fn socket(path: &Path) -> (&Path, u16) {
    let port = path
        .extension()
        .and_then(|port| port.to_str()?.parse().ok());
    (path.parent().unwrap_or(path), port.unwrap_or(5432))
}

fn is_full(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == "53300" || code == "57P03")
}

/// What became of an attempt to do what should not be possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attempt {
    /// It was refused, or found nothing.
    Failed,
    /// It was not refused, and this is what it found.
    Succeeded(String),
    /// It failed for another reason than a privilege, which tells nothing.
    Unclear(String),
}

/// `lock_not_available`.
pub(super) const IN_USE: &str = "55P03";
/// A fifth of a second in all: autovacuum of a small table is through by then, a busy view isn't ever.
const IN_USE_TRIES_MAX: u32 = 6;
const ATTEMPT: &str = "let an attack pass";
const UNDONE: &str = "PU009";
/// Undoes the transaction that it is the end of.
const UNDO: &str = "DO $undo$ BEGIN RAISE EXCEPTION 'undone' USING ERRCODE = 'PU009'; END $undo$";

impl Attempt {
    fn failed(error: ProvisioningError, codes: &[&str]) -> Result<Self, ProvisioningError> {
        let ProvisioningError::Refused { code, message, .. } = error else {
            return Err(error);
        };
        match code.as_str() {
            // No privilege; or there is no such thing on this server (an extension).
            "42501" | "0A000" | "58P01" => Ok(Self::Failed),
            code if codes.contains(&code) => Ok(Self::Failed),
            _ => Ok(Self::Unclear(format!("{message} ({code})"))),
        }
    }
}

impl Session {
    /// Runs statements as one transaction (but for those that can't be in one, which must be
    /// alone), again where they met somebody else's change of the same row of a catalogue.
    ///
    /// # Errors
    /// What PostgreSQL says; nothing of it is done then.
    ///
    /// # Cancel safety
    /// The transaction is done as a whole or not at all; which of them is not known.
    pub(super) async fn run(
        &mut self,
        step: &'static str,
        statements: &str,
    ) -> Result<(), ProvisioningError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.run_once(step, statements).await {
                Err(error) if error.is_transient() && tries < TRIES_MAX => {
                    pause(tries).await;
                }
                done => return done,
            }
        }
    }

    /// Runs statements as one transaction.
    pub(super) async fn run_once(
        &mut self,
        step: &'static str,
        statements: &str,
    ) -> Result<(), ProvisioningError> {
        let run = sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut self.db);
        let done = in_time(run).await;
        done.map_err(|error| ProvisioningError::of(step, &self.address, &error))?;
        Ok(())
    }

    /// The rows of a query.
    pub(super) async fn rows<T>(
        &mut self,
        step: &'static str,
        query: &str,
    ) -> Result<Vec<T>, ProvisioningError>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let query = sqlx::query_as(AssertSqlSafe(query)).persistent(false);
        let rows = in_time(query.fetch_all(&mut self.db)).await;
        rows.map_err(|error| ProvisioningError::of(step, &self.address, &error))
    }

    /// Tries to do what should be refused, by the usual codes or by these. All of it is undone, whether
    /// it is refused or not.
    pub(super) async fn attempt(
        &mut self,
        statements: &str,
        codes: &[&str],
    ) -> Result<Attempt, ProvisioningError> {
        let undone = format!("{statements};\n{UNDO}");
        let mut tries = 0;
        loop {
            tries += 1;
            match self.run_once(ATTEMPT, &undone).await {
                Ok(()) => return Ok(Attempt::Succeeded(String::new())),
                Err(ProvisioningError::Refused { code, .. }) if code == UNDONE => {
                    return Ok(Attempt::Succeeded(String::new()));
                }
                Err(error) if is_worth_another(&error, codes, tries) => pause(tries).await,
                Err(error) => return Attempt::failed(error, codes),
            }
        }
    }

    /// Tries to find what should not be found: the first text that a query returns.
    pub(super) async fn attempt_to_find(
        &mut self,
        query: &str,
        codes: &[&str],
    ) -> Result<Attempt, ProvisioningError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let rows = sqlx::raw_sql(AssertSqlSafe(query)).fetch_all(&mut self.db);
            let rows = in_time(rows).await;
            match rows.map_err(|error| ProvisioningError::of(ATTEMPT, &self.address, &error)) {
                Ok(rows) => {
                    return Ok(rows.first().map_or(Attempt::Failed, |row| {
                        let found = row.try_get::<Option<String>, _>(0).ok().flatten();
                        Attempt::Succeeded(found.unwrap_or_default())
                    }));
                }
                Err(error) if is_worth_another(&error, codes, tries) => pause(tries).await,
                Err(error) => return Attempt::failed(error, codes),
            }
        }
    }

    /// What an error of [`Session::db`] means.
    pub(super) fn error(&self, step: &'static str, error: &sqlx::Error) -> ProvisioningError {
        ProvisioningError::of(step, &self.address, error)
    }

    /// Says goodbye, so that the place is free before the next step.
    pub(super) async fn end(self) {
        if let Err(error) = in_time(self.db.close()).await {
            tracing::debug!(%error, "a connection of provisioning ended badly");
        }
    }
}

/// Apart from each other, so that those who met don't meet again.
async fn pause(tries: u32) {
    let pause = rand::random_range(5..20) * u64::from(tries.min(10));
    tokio::time::sleep(Duration::from_millis(pause)).await;
}

/// Whether an attempt met somebody else's work (a deadlock, a lock of another's), which says nothing
/// of what was attempted.
fn is_worth_another(error: &ProvisioningError, codes: &[&str], tries: u32) -> bool {
    if error.code() == Some(IN_USE) {
        return tries < IN_USE_TRIES_MAX;
    }
    let is_expected = error.code().is_some_and(|code| codes.contains(&code));
    error.is_transient() && !is_expected && tries < TRIES_MAX
}

async fn in_time<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    // PostgreSQL's own limit comes first; this one is for a cluster that has gone away.
    let limit = STATEMENT_TIME_MAX + Duration::from_secs(5);
    let done = tokio::time::timeout(limit, work).await;
    done.unwrap_or_else(|_elapsed| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_file_is_a_folder_and_a_port() {
        let path = Path::new("/run/postgresql/.s.PGSQL.6543");
        assert_eq!(socket(path), (Path::new("/run/postgresql"), 6543));
    }
}

//! Whether a cluster can be used to make tenants in: asked before anything is written.

use super::{
    ControlError,
    place::{Cause, Ground, upstream},
};
use crate::{
    registry::{Pauses, is_full},
    tenant::{Address, Secret, UpstreamTls},
};
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use std::{path::Path, time::Duration};
use tokio::time::{Instant, timeout};

/// How long it is asked again while PostgreSQL has no place for a connection.
const FULL_TIME_MAX: Duration = Duration::from_secs(30);
/// The database that every cluster has.
const DATABASE: &str = "postgres";

impl Ground {
    /// That its admin can log in there, and may make tenants.
    ///
    /// # Errors
    /// [`ControlError::Upstream`] says what is wrong and the way out.
    pub(super) async fn probe(&self) -> Result<(), ControlError> {
        let (name, role) = (&self.name, &self.admin.role);
        let options = self.options(DATABASE);
        let give_up = Instant::now() + FULL_TIME_MAX;
        let mut pauses = Pauses::default();
        let connected = loop {
            let connecting = PgConnection::connect_with(&options);
            let connected = timeout(self.admin.connect_timeout, connecting).await;
            let connected = connected.map_err(|elapsed| {
                let what = format!("cluster {name:?} did not answer at {}", self.admin.address);
                upstream(what, elapsed.into())
            })?;
            match connected {
                Err(error) if is_full(&error) && Instant::now() < give_up => pauses.next().await,
                other => break other,
            }
        };
        let mut db = connected.map_err(|error| self.refused(error))?;
        let asked = sqlx::query_as::<_, (bool, bool)>(
            "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool,
                    rolsuper OR (rolcreaterole AND rolcreatedb)
             FROM pg_roles WHERE rolname = current_user",
        );
        let asked = timeout(self.admin.connect_timeout, asked.fetch_one(&mut db)).await;
        db.close().await.ok();
        let failed = |cause: Cause| upstream(format!("cluster {name:?} did not answer"), cause);
        let asked = asked.map_err(|elapsed| failed(elapsed.into()))?;
        let (is_read_only, may_make) = asked.map_err(|error| failed(plain(error)))?;
        if is_read_only {
            let what = format!("cluster {name:?} can't be written to");
            let cause = "it is a standby, or default_transaction_read_only is on; give the primary";
            return Err(upstream(what, cause.into()));
        }
        if !may_make {
            let what = format!("the role {role:?} may not make tenants in cluster {name:?}");
            let cause = "it needs to be a superuser, or to have CREATEROLE and CREATEDB";
            return Err(upstream(what, cause.into()));
        }
        Ok(())
    }

    fn refused(&self, error: sqlx::Error) -> ControlError {
        let (name, role, address) = (&self.name, &self.admin.role, &self.admin.address);
        let what = match &error {
            sqlx::Error::Database(told) => match told.code().as_deref() {
                Some("28P01" | "28000") => {
                    format!(
                        "cluster {name:?} at {address} refused the login of {role:?}; is its password right?"
                    )
                }
                _ => format!("cluster {name:?} at {address} refused the login of {role:?}"),
            },
            _ => format!("cluster {name:?} does not answer at {address}"),
        };
        upstream(what, plain(error))
    }

    /// How its admin connects to one of its databases.
    pub(super) fn options(&self, database: &str) -> PgConnectOptions {
        let admin = &self.admin;
        let options = PgConnectOptions::new_without_pgpass()
            .application_name("pgusher")
            .disable_statement_logging()
            .username(&admin.role)
            .database(database);
        let options = match &admin.address {
            Address::Tcp { host, port } => options.host(host).port(*port),
            Address::Unix(file) => {
                let extension = file.extension().and_then(|text| text.to_str());
                let port = extension.and_then(|text| text.parse().ok());
                let folder = file.parent().unwrap_or(Path::new("/"));
                options.socket(folder).port(port.unwrap_or(5432))
            }
        };
        // Else it would be taken from the environment.
        let password = admin.password.as_ref().map_or("", Secret::expose);
        let options = options.password(password);
        let with_ca = |options: PgConnectOptions, ca: &Option<_>| match ca {
            Some(ca) => options.ssl_root_cert(ca),
            None => options,
        };
        match &admin.tls {
            // PostgreSQL has no TLS there.
            _ if matches!(admin.address, Address::Unix(_)) => options.ssl_mode(PgSslMode::Disable),
            UpstreamTls::Disable => options.ssl_mode(PgSslMode::Disable),
            UpstreamTls::Require => options.ssl_mode(PgSslMode::Require),
            UpstreamTls::VerifyCa(ca) => with_ca(options.ssl_mode(PgSslMode::VerifyCa), ca),
            UpstreamTls::VerifyFull(ca) => with_ca(options.ssl_mode(PgSslMode::VerifyFull), ca),
        }
    }
}

/// What went wrong, said once: sqlx's words have their cause in them already.
fn plain(error: sqlx::Error) -> Cause {
    match error {
        sqlx::Error::Database(told) => {
            let code = told.code().unwrap_or_default().into_owned();
            format!("{} ({code})", told.message()).into()
        }
        sqlx::Error::Io(error) => error.into(),
        other => other.into(),
    }
}

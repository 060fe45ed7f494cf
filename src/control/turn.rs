//! One at a time for each tenant: who changes what stands in its cluster has the tenant's turn.
//!
//! The turn is an advisory lock of a connection of its own: it ends with the connection, so with
//! the process, however that ends.

use super::{Control, ControlError};
use sqlx::{Connection as _, PgConnection, Postgres, Transaction};
use std::time::Duration;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{error::Elapsed, timeout},
};

/// Turns at the same time, of all tenants: each has a connection to the registry, and PostgreSQL
/// is not faster at making twenty databases at once than at making eight.
pub(super) const TURNS: usize = 8;
/// For a place among those.
const PLACE_TIME_MAX: Duration = Duration::from_mins(5);
/// For a connection to the registry.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// The first half of the lock's number; the second is the tenant's.
const LOCK: i32 = 7_202_412;

/// Whether to wait for another's turn with the same tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Not at all.
    None,
    /// For 30 s.
    Some,
}

/// The right to change a tenant's place.
pub(super) struct Turn {
    pub(super) db: PgConnection,
    _place: OwnedSemaphorePermit,
}

fn late(_error: Elapsed) -> ControlError {
    sqlx::Error::PoolTimedOut.into()
}

impl Control {
    /// Takes a tenant's turn.
    ///
    /// # Errors
    /// [`ControlError::Conflict`] when somebody else has it.
    ///
    /// # Cancel safety
    /// Cancel safe: a turn that is not handed out ends.
    pub(super) async fn turn(&self, id: &str, patience: Patience) -> Result<Turn, ControlError> {
        let turns = std::sync::Arc::clone(&self.turns);
        let place = timeout(PLACE_TIME_MAX, turns.acquire_owned()).await;
        let place = place
            .map_err(late)?
            .map_err(|_closed| sqlx::Error::PoolClosed)?;
        let options = self.registry.pool.connect_options();
        let connecting = timeout(CONNECT_TIME_MAX, PgConnection::connect_with(&options));
        let mut db = connecting.await.map_err(late)??;
        let has_it = match patience {
            Patience::None => {
                let query = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, hashtext($2))");
                query.bind(LOCK).bind(id).fetch_one(&mut db).await?
            }
            Patience::Some => wait(&mut db, id).await?,
        };
        if !has_it {
            db.close().await.ok();
            return Err(ControlError::Conflict(format!(
                "something else is being done to tenant {id:?} right now; wait until that has ended and try again"
            )));
        }
        Ok(Turn { db, _place: place })
    }
}

async fn wait(db: &mut PgConnection, id: &str) -> Result<bool, ControlError> {
    sqlx::query("SET lock_timeout = '30s'")
        .execute(&mut *db)
        .await?;
    let query = sqlx::query("SELECT pg_advisory_lock($1, hashtext($2))");
    let locked = query.bind(LOCK).bind(id).execute(&mut *db).await;
    match locked {
        Ok(_) => Ok(true),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03") => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Turn {
    /// A transaction of the turn's connection.
    pub(super) async fn begin(&mut self) -> Result<Transaction<'_, Postgres>, ControlError> {
        Ok(self.db.begin().await?)
    }

    /// Gives the turn back.
    pub(super) async fn end(self) {
        // When it can't be said the lock ends with the socket.
        timeout(CONNECT_TIME_MAX, self.db.close()).await.ok();
    }
}

//! One at a time for each tenant: who changes what stands in its cluster has the tenant's turn.
//!
//! The turn is an advisory lock of a connection of its own: it ends with the connection, so with
//! the process, however that ends.

use super::{Control, ControlError};
use crate::registry::Pauses;
use sqlx::{Connection as _, PgConnection, Postgres, Transaction};
use std::time::Duration;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{error::Elapsed, timeout},
};

/// Turns at the same time, of all tenants and of all processes: each has a connection to the
/// registry, and PostgreSQL is not faster at making twenty databases at once than at making eight.
pub(super) const TURNS: usize = 8;
/// For a place among those.
const PLACE_TIME_MAX: Duration = Duration::from_mins(5);
/// While the registry has no place for a connection.
const PATIENCE: Duration = Duration::from_mins(1);
/// For the end of a connection.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);
/// The first half of the number of a place's lock; the second says which place.
const PLACE_LOCK: i32 = 7_202_413;
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
        let mut db = timeout(PLACE_TIME_MAX, self.place_among_all())
            .await
            .map_err(late)??;
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

impl Control {
    /// A connection with one of the places that all processes share. Who finds none waits without a
    /// connection, so that those who have one can go on.
    async fn place_among_all(&self) -> Result<PgConnection, ControlError> {
        let mut pauses = Pauses::default();
        loop {
            let mut db = self.registry.connect(PATIENCE).await?;
            let place: Option<i32> = sqlx::query_scalar(
                "SELECT n FROM generate_series(1, $2) n WHERE pg_try_advisory_lock($1, n) LIMIT 1",
            )
            .bind(PLACE_LOCK)
            .bind(i32::try_from(TURNS).unwrap_or(1))
            .fetch_optional(&mut db)
            .await?;
            if place.is_some() {
                return Ok(db);
            }
            timeout(CLOSE_TIME_MAX, db.close()).await.ok();
            pauses.next().await;
        }
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
        timeout(CLOSE_TIME_MAX, self.db.close()).await.ok();
    }
}

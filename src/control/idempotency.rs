//! The same request twice is done once: what it answered is kept for a day, sealed, as it may show
//! a key.

use super::{Actor, Control, ControlError};
use crate::{
    crypto::{Purpose, Sealed},
    registry::RegistryError,
};
use zeroize::Zeroizing;

/// Hash of everything that makes a request the same.
pub type RequestHash = [u8; 32];

/// What is to be done with a request.
#[derive(Debug)]
pub enum Begun {
    /// It is the first: do it, then [`Control::finish_once`] or [`Control::give_up_once`].
    First,
    /// It was done: this was the answer.
    Done {
        /// HTTP status.
        status: u16,
        /// The body.
        body: Zeroizing<Vec<u8>>,
    },
    /// The first is still under way.
    UnderWay,
    /// The first was another request.
    Another,
}

/// A row of the table, as far as it decides.
type Row = (Vec<u8>, Option<Vec<u8>>, Option<i32>);

impl Control {
    /// Claims a key for a request. A claim whose process died without an answer lapses after 15
    /// minutes, longer than any request takes.
    ///
    /// # Errors
    /// [`ControlError::Registry`].
    ///
    /// # Cancel safety
    /// A claim may be left behind; it lapses.
    pub async fn begin_once(
        &self,
        actor: &Actor,
        (key, request): (&str, &RequestHash),
    ) -> Result<Begun, ControlError> {
        // Twice at most: between the two statements the row may go.
        for _ in 0..2 {
            let claimed = sqlx::query(
                "INSERT INTO pgusher.idempotency AS i (actor, key, request) VALUES ($1, $2, $3)
                 ON CONFLICT (actor, key) DO UPDATE
                     SET request = excluded.request, answer = NULL, status = NULL, created_at = now()
                     WHERE i.created_at < now() - interval '1 day'
                        OR (i.answer IS NULL AND i.created_at < now() - interval '15 minutes')",
            )
            .bind(&actor.name)
            .bind(key)
            .bind(request.as_slice())
            .execute(&self.registry.pool)
            .await?;
            if claimed.rows_affected() == 1 {
                return Ok(Begun::First);
            }
            let row: Option<Row> = sqlx::query_as(
                "SELECT request, answer, status FROM pgusher.idempotency WHERE actor = $1 AND key = $2",
            )
            .bind(&actor.name)
            .bind(key)
            .fetch_optional(&self.registry.pool)
            .await?;
            if let Some(row) = row {
                return self.decide(actor, (key, request), row);
            }
        }
        Ok(Begun::UnderWay)
    }

    fn decide(
        &self,
        actor: &Actor,
        (key, request): (&str, &RequestHash),
        (before, answer, status): Row,
    ) -> Result<Begun, ControlError> {
        if before != request {
            return Ok(Begun::Another);
        }
        let (Some(answer), Some(status)) = (answer, status) else {
            return Ok(Begun::UnderWay);
        };
        let (owner, what) = purpose(actor, key);
        let purpose = Purpose {
            owner: &owner,
            what: &what,
        };
        let opened = self.registry.keyring.open(purpose, Sealed(&answer));
        let body = opened.map_err(|source| RegistryError::Open {
            owner,
            what: "kept answer".to_owned(),
            source,
        })?;
        Ok(Begun::Done {
            status: u16::try_from(status).unwrap_or(500),
            body,
        })
    }

    /// Keeps the answer of the first.
    ///
    /// # Errors
    /// [`ControlError::Registry`]: the request is done, but a repetition won't know.
    ///
    /// # Cancel safety
    /// It is kept then, or not.
    pub async fn finish_once(
        &self,
        actor: &Actor,
        key: &str,
        (status, body): (u16, &[u8]),
    ) -> Result<(), ControlError> {
        let (owner, what) = purpose(actor, key);
        let purpose = Purpose {
            owner: &owner,
            what: &what,
        };
        let sealed = self.registry.keyring.seal(purpose, body);
        let sealed = sealed.map_err(RegistryError::from)?;
        sqlx::query(
            "UPDATE pgusher.idempotency SET answer = $3, status = $4
             WHERE actor = $1 AND key = $2 AND answer IS NULL",
        )
        .bind(&actor.name)
        .bind(key)
        .bind(sealed)
        .bind(i32::from(status))
        .execute(&self.registry.pool)
        .await?;
        Ok(())
    }

    /// Gives a claim back: what failed for a reason that may pass can be tried again.
    ///
    /// # Errors
    /// [`ControlError::Registry`].
    ///
    /// # Cancel safety
    /// It is given back then, or it lapses.
    pub async fn give_up_once(&self, actor: &Actor, key: &str) -> Result<(), ControlError> {
        sqlx::query(
            "DELETE FROM pgusher.idempotency WHERE actor = $1 AND key = $2 AND answer IS NULL",
        )
        .bind(&actor.name)
        .bind(key)
        .execute(&self.registry.pool)
        .await?;
        Ok(())
    }

    /// Removes what was kept for longer than a day; returns how much that was.
    ///
    /// # Errors
    /// [`ControlError::Registry`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn forget_answers(&self) -> Result<u64, ControlError> {
        let sql = "DELETE FROM pgusher.idempotency WHERE created_at < now() - interval '1 day'";
        let done = sqlx::query(sql).execute(&self.registry.pool).await?;
        Ok(done.rows_affected())
    }
}

fn purpose(actor: &Actor, key: &str) -> (String, String) {
    (
        format!("actor:{}", actor.name),
        format!("idempotency:{key}"),
    )
}

//! Sealing everything anew under the newest master key.

use super::{Actor, Control, ControlError, Role};
use crate::{
    crypto::{Purpose, Sealed},
    registry::{Changes, NewEvent, RegistryError, append},
};
use serde::Serialize;
use sqlx::{AssertSqlSafe, Row as _, postgres::PgRow};

/// Rows that are looked at with one query.
const BATCH: i64 = 500;

/// A column of sealed values, and how the purpose of each follows from its row.
struct Column {
    /// For messages.
    what: &'static str,
    table: &'static str,
    name: &'static str,
    /// The primary key as one text, to go on behind the last one.
    key: &'static str,
    /// `Purpose::owner` and `Purpose::what`, in SQL.
    owner: &'static str,
    purpose: &'static str,
}

const COLUMNS: [Column; 6] = [
    Column {
        what: "admin password",
        table: "cluster",
        name: "admin_password",
        key: "name",
        owner: "'cluster:' || name",
        purpose: "'admin'",
    },
    Column {
        what: "slot key",
        table: "slot_key",
        name: "sealed",
        key: "cluster || '/' || database_name || '/' || id",
        owner: "'cluster:' || cluster",
        purpose: "'slots:' || database_name",
    },
    Column {
        what: "password",
        table: "tenant",
        name: "password",
        key: "id",
        owner: "'tenant:' || id",
        purpose: "'password'",
    },
    Column {
        what: "read-only password",
        table: "tenant",
        name: "read_only_password",
        key: "id",
        owner: "'tenant:' || id",
        purpose: "'read_only_password'",
    },
    Column {
        what: "configuration entry",
        table: "entry",
        name: "sealed",
        key: "tenant || '/' || key",
        owner: "'tenant:' || tenant",
        purpose: "'entry:' || key",
    },
    Column {
        what: "answer to a repeated request",
        table: "idempotency",
        name: "answer",
        key: "actor || '/' || key",
        owner: "'actor:' || actor",
        purpose: "'idempotency:' || key",
    },
];

/// What a rotation did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rotated {
    /// The number of the key that everything is sealed under now.
    pub key: u32,
    /// Values that were sealed anew.
    pub resealed: u64,
    /// Values that were sealed under it already.
    pub current: u64,
    /// Values that can't be opened: whose, and why. They stay as they are.
    pub failed: Vec<String>,
}

impl Control {
    /// How many sealed values there are, for a progress bar.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn count_secrets(&self) -> Result<u64, ControlError> {
        let mut count = 0;
        for column in &COLUMNS {
            let Column { table, name, .. } = column;
            let sql = format!("SELECT count({name}) FROM pgusher.{table}");
            let found: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
                .fetch_one(&self.registry.pool)
                .await?;
            count += u64::try_from(found).unwrap_or(0);
        }
        Ok(count)
    }

    /// Seals every secret of the registry anew under the newest master key. Nothing stops
    /// meanwhile: proxies open what is sealed under either key, as long as they have both. Run
    /// again after an end in the middle, it goes on; what somebody else changes meanwhile stays
    /// as they made it. `on_value` is told of every value that was looked at.
    ///
    /// # Errors
    /// [`ControlError`]; a value that can't be opened is no error, but listed.
    ///
    /// # Cancel safety
    /// Cancel safe: run it again.
    pub async fn rotate_secrets(
        &self,
        actor: &Actor,
        mut on_value: impl FnMut(),
    ) -> Result<Rotated, ControlError> {
        actor.may_operate(Role::Admin)?;
        // What has the newest key's number is not opened: another key of that number would pass.
        self.registry.check_keyring().await?;
        let mut rotated = Rotated {
            key: self.registry.keyring.current(),
            ..Rotated::default()
        };
        for column in &COLUMNS {
            self.rotate_column(column, &mut rotated, &mut on_value)
                .await?;
        }
        let event = NewEvent {
            tenant: None,
            kind: "SecretsRotated",
            actor: &actor.name,
            address: &actor.address,
            changes: Changes::default(),
            facts: serde_json::json!({
                "key": rotated.key,
                "resealed": rotated.resealed,
                "failed": rotated.failed.len(),
            }),
        };
        let mut db = self.registry.pool.acquire().await?;
        append(&mut db, event).await?;
        Ok(rotated)
    }

    async fn rotate_column(
        &self,
        column: &Column,
        rotated: &mut Rotated,
        on_value: &mut impl FnMut(),
    ) -> Result<(), ControlError> {
        let Column {
            table,
            name,
            key,
            owner,
            purpose,
            ..
        } = column;
        let select = format!(
            "SELECT {key} AS key, {owner} AS owner, {purpose} AS purpose, {name} AS sealed
             FROM pgusher.{table} WHERE {name} IS NOT NULL AND {key} > $1 ORDER BY {key} LIMIT $2"
        );
        let mut last = String::new();
        loop {
            let rows = sqlx::query(AssertSqlSafe(select.as_str()))
                .bind(&last)
                .bind(BATCH)
                .fetch_all(&self.registry.pool)
                .await?;
            let Some(end) = rows.last() else {
                return Ok(());
            };
            last = end.try_get("key")?;
            for row in &rows {
                self.rotate_value(column, row, rotated).await?;
                on_value();
            }
        }
    }

    async fn rotate_value(
        &self,
        column: &Column,
        row: &PgRow,
        rotated: &mut Rotated,
    ) -> Result<(), ControlError> {
        let keyring = &self.registry.keyring;
        let key: String = row.try_get("key")?;
        let (owner, what): (String, String) = (row.try_get("owner")?, row.try_get("purpose")?);
        let sealed: Vec<u8> = row.try_get("sealed")?;
        if keyring.is_current(Sealed(&sealed)) {
            rotated.current += 1;
            return Ok(());
        }
        let purpose = Purpose {
            owner: &owner,
            what: &what,
        };
        let value = match keyring.open(purpose, Sealed(&sealed)) {
            Ok(value) => value,
            Err(error) => {
                let Column { what, .. } = column;
                rotated.failed.push(format!("{what} of {key}: {error}"));
                return Ok(());
            }
        };
        let anew = keyring.seal(purpose, &value).map_err(RegistryError::from)?;
        let update = format!(
            "UPDATE pgusher.{0} SET {1} = $1 WHERE {2} = $2 AND {1} = $3",
            column.table, column.name, column.key
        );
        let done = sqlx::query(AssertSqlSafe(update))
            .bind(anew)
            .bind(&key)
            .bind(&sealed)
            .execute(&self.registry.pool)
            .await?;
        rotated.resealed += done.rows_affected();
        Ok(())
    }
}

//! Reading and writing `pgusher.slot_key`: what opens the slots of a database of the tier `row`.

use super::{RegistryError, SlotKeyRow, TenantRow, slot_key_of, slot_key_purpose};
use crate::{
    crypto::{Keyring, Purpose},
    tenant::SlotKey,
};
use sqlx::PgConnection;

/// The newest key of the database that a tenant uses through slots.
pub(super) async fn newest(
    db: &mut PgConnection,
    tenant: &TenantRow,
) -> Result<Option<SlotKeyRow>, sqlx::Error> {
    if tenant.variant != "shared" {
        return Ok(None);
    }
    newest_of(db, (&tenant.cluster, &tenant.database_name)).await
}

async fn newest_of(
    db: &mut PgConnection,
    (cluster, database): (&str, &str),
) -> Result<Option<SlotKeyRow>, sqlx::Error> {
    let query = sqlx::query_as(
        "SELECT * FROM pgusher.slot_key WHERE cluster = $1 AND database_name = $2
         ORDER BY id DESC LIMIT 1",
    );
    query.bind(cluster).bind(database).fetch_optional(db).await
}

/// All keys. There are few.
pub(super) async fn all(db: &mut PgConnection) -> Result<Vec<SlotKeyRow>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM pgusher.slot_key")
        .fetch_all(db)
        .await
}

/// The newest of these keys that opens the tenant's slots.
pub(super) fn of<'a>(keys: &'a [SlotKeyRow], tenant: &TenantRow) -> Option<&'a SlotKeyRow> {
    let opens = |key: &&SlotKeyRow| {
        tenant.variant == "shared"
            && key.cluster == tenant.cluster
            && key.database_name == tenant.database_name
    };
    keys.iter().filter(opens).max_by_key(|key| key.id)
}

/// The newest key of a database's slots and its number; made at the first call.
///
/// # Errors
/// [`RegistryError`].
///
/// # Cancel safety
/// Cancel safe: there is a key then, or none.
pub async fn slot_key(
    db: &mut PgConnection,
    (cluster, database): (&str, &str),
    keyring: &Keyring,
) -> Result<(i32, SlotKey), RegistryError> {
    let (owner, what) = slot_key_purpose(cluster, database);
    let purpose = Purpose {
        owner: &owner,
        what: &what,
    };
    if newest_of(db, (cluster, database)).await?.is_none() {
        let made = keyring.seal(purpose, SlotKey::random(None).to_text().as_bytes())?;
        sqlx::query(
            "INSERT INTO pgusher.slot_key (cluster, database_name, id, sealed)
             VALUES ($1, $2, 1, $3) ON CONFLICT DO NOTHING",
        )
        .bind(cluster)
        .bind(database)
        .bind(made)
        .execute(&mut *db)
        .await?;
    }
    let row = newest_of(db, (cluster, database)).await?;
    let row = row.ok_or_else(|| RegistryError::Row {
        what: format!("slot key of {database}"),
        problem: "it is gone".to_owned(),
    })?;
    Ok((row.id, slot_key_of(&row, keyring)?))
}

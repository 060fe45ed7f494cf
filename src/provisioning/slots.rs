//! The variant `shared` of the tier `row`: slots, login roles that serve one tenant after the other.

use super::{Admin, ProvisioningError, text::ONE_AT_A_TIME};
use crate::{
    sql::{quoted_literal, quoted_name},
    tenant::{ScramVerifier, SlotKey},
};
use sqlx::{AssertSqlSafe, PgConnection};
use zeroize::Zeroizing;

/// What a database needs for slots: `ctl.bind`, `ctl.lease`, `ctl.claim` and who owns them.
const PREPARE: &str = include_str!("sql/slots.sql");

/// Raised with every change of it: a database that was prepared by an earlier one is prepared again.
const LEVEL: i32 = 2;

/// Most roles of each kind that are made before they are asked for.
const READY_MAX: u32 = 100;

/// Bytes of a block of SHA-256.
const BLOCK_BYTES: usize = 64;

/// Makes a prepared database of the tier `row` one that serves tenants through slots, and makes this
/// key known there beside those that are. `db` is a superuser's connection to it, outside a
/// transaction. Idempotent: one transaction.
///
/// # Errors
/// What PostgreSQL says: 42501 when it is no superuser's.
///
/// # Cancel safety
/// Nothing is done unless all is.
pub async fn prepare_slots(
    db: &mut PgConnection,
    key_id: i32,
    key: &SlotKey,
) -> Result<(), sqlx::Error> {
    let sql = statements(key_id, key);
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_string())).execute(db);
    done.await.map(drop)
}

fn statements(key_id: i32, key: &SlotKey) -> Zeroizing<String> {
    let password = key.lease.password.as_ref().map(ScramVerifier::of_random);
    let password = password.map_or("NULL".to_owned(), |v| quoted_literal(&v.to_string()));
    let role = quoted_name(&key.lease.role);
    let connections = key.connections.min(READY_MAX);
    Zeroizing::new(format!(
        "SET LOCAL client_min_messages = warning;{PREPARE}
         ALTER ROLE {role} LOGIN CONNECTION LIMIT 100 PASSWORD {password};
         SELECT ctl.make_slot(kind) FROM pg_catalog.unnest(ARRAY['s', 'q']) AS kind,
             pg_catalog.generate_series(1, {connections} - (SELECT pg_catalog.count(*) FROM ctl.slot AS s WHERE s.kind = kind));
         INSERT INTO ctl.hmac_key (id, ipad, opad, level) VALUES ({key_id}, decode('{}','hex'), decode('{}','hex'), {LEVEL})
             ON CONFLICT (id) DO UPDATE SET ipad = excluded.ipad, opad = excluded.opad, level = excluded.level",
        *pad(key, 0x36),
        *pad(key, 0x5c)
    ))
}

/// Makes the slots of a prepared database, unless they are made and this key is known there.
///
/// # Errors
/// What PostgreSQL says: 42501 when the admin is no superuser.
///
/// # Cancel safety
/// Nothing is done unless all is.
pub async fn make_slots(
    admin: &Admin,
    database: &str,
    (key_id, key): (i32, &SlotKey),
) -> Result<(), ProvisioningError> {
    const STEP: &str = "make the slots";
    let mut session = admin.connect(database).await?;
    let known = format!("SELECT id FROM ctl.hmac_key WHERE level = {LEVEL}");
    // Without slots there is no such table.
    let known: Vec<(i32,)> = session.rows(STEP, &known).await.unwrap_or_default();
    if known.iter().all(|(id,)| *id != key_id) {
        session
            .run(STEP, &[ONE_AT_A_TIME, &statements(key_id, key)].concat())
            .await?;
    }
    session.end().await;
    Ok(())
}

/// Makes an earlier key unknown: tokens made with it bind nothing any more.
///
/// # Errors
/// What PostgreSQL says.
///
/// # Cancel safety
/// It is done or not.
pub async fn forget_slot_key(db: &mut PgConnection, key_id: i32) -> Result<(), sqlx::Error> {
    let done = sqlx::query("DELETE FROM ctl.hmac_key WHERE id = $1").bind(key_id);
    done.execute(db).await.map(drop)
}

/// The key, filled up to a block, with this byte in each of its own, as hex.
fn pad(key: &SlotKey, byte: u8) -> Zeroizing<String> {
    let mut block = Zeroizing::new([byte; BLOCK_BYTES]);
    for (one, of_key) in block.iter_mut().zip(key.expose()) {
        *one ^= of_key;
    }
    Zeroizing::new(hex::encode(block.as_ref()))
}

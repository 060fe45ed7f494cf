//! The variant `shared` of the tier `row`: slots, login roles that serve one tenant after the other.

use crate::{
    sql::{quoted_literal, quoted_name},
    tenant::{ScramVerifier, SlotKey},
};
use sqlx::{AssertSqlSafe, PgConnection};
use zeroize::Zeroizing;

/// What a database needs for slots: `ctl.bind`, `ctl.lease`, `ctl.claim` and who owns them.
const PREPARE: &str = include_str!("sql/slots.sql");

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
    let password = key.lease.password.as_ref().map(ScramVerifier::of_random);
    let password = password.map_or("NULL".to_owned(), |v| quoted_literal(&v.to_string()));
    let role = quoted_name(&key.lease.role);
    let sql = Zeroizing::new(format!(
        "SET LOCAL client_min_messages = warning;{PREPARE}
         ALTER ROLE {role} LOGIN CONNECTION LIMIT 100 PASSWORD {password};
         INSERT INTO ctl.hmac_key (id, ipad, opad) VALUES ({key_id}, decode('{}','hex'), decode('{}','hex'))
             ON CONFLICT (id) DO UPDATE SET ipad = excluded.ipad, opad = excluded.opad",
        *pad(key, 0x36),
        *pad(key, 0x5c)
    ));
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_string())).execute(db);
    done.await.map(drop)
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
    use std::fmt::Write as _;
    let key = key.expose().iter().copied();
    let filled = key.chain(std::iter::repeat(0)).take(BLOCK_BYTES);
    let mut text = Zeroizing::new(String::with_capacity(2 * BLOCK_BYTES));
    for one in filled {
        let written = write!(text, "{:02x}", one ^ byte);
        debug_assert!(written.is_ok(), "a String takes everything");
    }
    text
}

//! What may be changed of an API key: its limits, and from where and when it opens. Never what it is.

use super::{
    Actor, Control, ControlError, KeyView, NewKey, Patch, Role,
    change::given,
    keys::{lock, lock_key, still_opens, whole},
    view::key_record,
};
use crate::registry::{self, Changes, KeyRow, NewEvent};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// A change of a key: absent fields stay, a limit, a list or a time that is `null` is none. What a field means is said of
/// a new key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "a field is named as a new key's")]
pub struct KeyChange {
    #[serde(deserialize_with = "some")]
    pub name: Option<String>,
    /// `read_write` or `read_only`. Sessions that are open keep theirs.
    #[serde(deserialize_with = "some")]
    pub scope: Option<String>,
    /// Replaces all of them; empty: everywhere. It is asked at a login.
    #[serde(deserialize_with = "given")]
    pub allow: Patch<Vec<String>>,
    #[serde(deserialize_with = "given")]
    pub rate_limit_per_hour: Patch<i32>,
    #[serde(deserialize_with = "given")]
    pub max_client_connections: Patch<i32>,
    #[serde(deserialize_with = "given")]
    pub max_concurrent_queries: Patch<i32>,
    #[serde(deserialize_with = "given")]
    pub transactions_per_second: Patch<i32>,
    #[serde(deserialize_with = "given")]
    pub transactions_per_hour: Patch<i32>,
    #[serde(deserialize_with = "given")]
    pub bytes_per_second: Patch<i64>,
    #[serde(deserialize_with = "given")]
    pub logins_per_second: Patch<i32>,
    #[serde(deserialize_with = "given_time")]
    pub not_before: Patch<OffsetDateTime>,
    /// Sessions that are open end then, too.
    #[serde(deserialize_with = "given_time")]
    pub expires_at: Patch<OffsetDateTime>,
}

/// What is given is something.
fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

fn given_time<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Patch<OffsetDateTime>, D::Error> {
    time::serde::rfc3339::option::deserialize(deserializer).map(Some)
}

fn put<T>(field: &mut Option<T>, patch: Patch<T>) {
    if let Some(value) = patch {
        *field = value;
    }
}

impl KeyChange {
    /// The key after it.
    ///
    /// # Errors
    /// [`ControlError::Invalid`], as of a new key.
    fn applied(self, before: &KeyRow, now: OffsetDateTime) -> Result<KeyRow, ControlError> {
        let mut new = NewKey::like(before);
        new.name = self.name.unwrap_or(new.name);
        new.scope = self.scope.or(new.scope);
        new.allow = self.allow.map_or(new.allow, Option::unwrap_or_default);
        put(&mut new.rate_limit_per_hour, self.rate_limit_per_hour);
        put(&mut new.max_client_connections, self.max_client_connections);
        put(&mut new.max_concurrent_queries, self.max_concurrent_queries);
        put(
            &mut new.transactions_per_second,
            self.transactions_per_second,
        );
        put(&mut new.transactions_per_hour, self.transactions_per_hour);
        put(&mut new.bytes_per_second, self.bytes_per_second);
        put(&mut new.logins_per_second, self.logins_per_second);
        put(&mut new.not_before, self.not_before);
        put(&mut new.expires_at, self.expires_at);
        new.check(now)?;
        Ok(KeyRow {
            scope: new.scope().to_owned(),
            allow: new.networks(),
            name: new.name,
            rate_limit_per_hour: new.rate_limit_per_hour,
            max_client_connections: new.max_client_connections,
            max_concurrent_queries: new.max_concurrent_queries,
            transactions_per_second: new.transactions_per_second,
            transactions_per_hour: new.transactions_per_hour,
            bytes_per_second: new.bytes_per_second,
            logins_per_second: new.logins_per_second,
            not_before: new.not_before.map(whole),
            expires_at: new.expires_at.map(whole),
            ..before.clone()
        })
    }
}

impl Control {
    /// Changes what can be changed of a key that is neither revoked nor expired. Proxies hear of it at once:
    /// rates and `max_concurrent_queries` hold for sessions that are open, the rest for logins to come, and
    /// sessions end when their key does. Needs an operator with the role `manager`.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// It is changed then, or it is not.
    pub async fn change_key(
        &self,
        actor: &Actor,
        (tenant, key): (&str, &str),
        change: KeyChange,
    ) -> Result<KeyView, ControlError> {
        actor.may_operate(Role::Manager)?;
        let now = OffsetDateTime::now_utc();
        let mut tx = self.registry.pool.begin().await?;
        let owner = lock(&mut tx, tenant).await?;
        let before = lock_key(&mut tx, tenant, key).await?;
        if owner.status == "terminated" {
            let problem = format!("tenant {tenant:?} is terminated");
            return Err(ControlError::Conflict(problem));
        }
        still_opens(&before, now)?;
        let after = change.applied(&before, now)?;
        let changes = Changes::between(&key_record(&before), &key_record(&after));
        if changes.0.is_empty() {
            return Ok(KeyView::from(&before));
        }
        registry::change_key(&mut tx, &after).await?;
        let event = NewEvent {
            tenant: Some(tenant),
            kind: "AccessChanged",
            actor: &actor.name,
            address: &actor.address,
            changes,
            facts: json!({}),
        };
        registry::append(&mut tx, event).await?;
        tx.commit().await?;
        Ok(KeyView::from(&after))
    }
}

//! From rows to what the data plane knows.

mod cluster;

pub use cluster::{cluster_of, watch_of};

use super::{KeyRow, RegistryError, SlotKeyRow, TenantRow};
use crate::{
    config::replica_url,
    crypto::{Keyring, Purpose, Sealed},
    tenant::{
        ApiKey, Caps, ClusterName, KeyId, Limits, Login, Pinning, Placement, Plan, Plans, PoolMode,
        Reads, Scope, Secret, SlotKey, Slots, Status, Tenant, TenantId, Terms, Tier, Timeouts,
    },
};
use std::{
    num::{NonZeroU32, NonZeroU64},
    sync::Arc,
    time::{Duration, SystemTime},
};
use time::OffsetDateTime;

/// A tenant as of a generation.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// The tenant.
    pub tenant: Arc<Tenant>,
    /// The number of the change that made it so.
    pub generation: i64,
}

/// The tenant of a row and its keys; `None` when it is not (or no longer) served at all. Revoked
/// keys are left out.
///
/// # Errors
/// [`RegistryError::Row`] or [`RegistryError::Open`]: one unusable row fails its tenant alone. A
/// tenant of the variant `shared` is one: see [`tenant_in_slots`].
pub fn tenant_of(
    row: &TenantRow,
    keys: &[KeyRow],
    keyring: &Keyring,
) -> Result<Option<Assembled>, RegistryError> {
    tenant_in_slots(row, keys, None, (&Plans::default(), keyring))
}

/// The same for a tenant of any variant: one of the variant `shared` needs the newest key of its
/// database's slots. What it does not say itself, its plan does.
///
/// # Errors
/// [`RegistryError::Row`] or [`RegistryError::Open`]: one unusable row fails its tenant alone.
pub fn tenant_in_slots(
    row: &TenantRow,
    keys: &[KeyRow],
    slot_key: Option<&SlotKeyRow>,
    (plans, keyring): (&Plans, &Keyring),
) -> Result<Option<Assembled>, RegistryError> {
    let plan = plans.get(&row.plan);
    let status = match row.status.as_str() {
        "active" => Status::Active,
        "suspended" => Status::Suspended,
        _ => return Ok(None),
    };
    let tenant = Tenant {
        id: TenantId::new(&row.id).map_err(|error| unusable(&row.id, "id", error))?,
        status,
        placement: placement(row, slot_key, keyring)?,
        pool_mode: word(row, "pool_mode", row.pool_mode.as_deref())?
            .unwrap_or(PoolMode::Transaction),
        pinning: match row.pin.as_deref() {
            Some("refuse") => Pinning::Refuse,
            _ => Pinning::Allow,
        },
        limits: limits(row, plan)?,
        storage_used: None,
        terms: terms(row, plan),
        timeouts: timeouts(row),
        reads: reads(row)?,
        settings: settings(row),
        forced: row
            .forced
            .iter()
            .map(|name| name.to_ascii_lowercase().into())
            .collect(),
        keys: keys
            .iter()
            .filter(|key| key.status == "active")
            .map(|key| api_key(key).map(Arc::new))
            .collect::<Result<_, _>>()?,
    };
    Ok(Some(Assembled {
        tenant: Arc::new(tenant),
        generation: row.generation,
    }))
}

/// How long a transaction of a tenant that uses slots may stand idle, where nothing else is said.
const SLOT_IDLE: Duration = Duration::from_mins(1);

fn unusable(id: &str, field: &str, problem: impl std::fmt::Display) -> RegistryError {
    RegistryError::Row {
        what: format!("{field} of tenant {id}"),
        problem: problem.to_string(),
    }
}

fn placement(
    row: &TenantRow,
    slot_key: Option<&SlotKeyRow>,
    keyring: &Keyring,
) -> Result<Placement, RegistryError> {
    let login = |role: &str, what: &str, sealed: Option<&[u8]>| {
        Ok::<_, RegistryError>(Login {
            role: role.into(),
            password: sealed
                .map(|sealed| open(row, what, sealed, keyring))
                .transpose()?,
        })
    };
    let reader = row.read_only_role.as_deref();
    let reader = reader.map(|role| {
        login(
            role,
            "read_only_password",
            row.read_only_password.as_deref(),
        )
    });
    Ok(Placement {
        cluster: ClusterName::new(&row.cluster)
            .map_err(|error| unusable(&row.id, "cluster", error))?,
        tier: row
            .tier
            .parse::<Tier>()
            .map_err(|error| unusable(&row.id, "tier", error))?,
        database: row.database_name.as_str().into(),
        schema: row.schema_name.as_deref().map(Into::into),
        login: login(&row.role, "password", row.password.as_deref())?,
        read_only_login: reader.transpose()?,
        slots: slots(row, slot_key, keyring)?,
    })
}

/// How a tenant of the variant `shared` is served; `None` for one with a login of its own.
fn slots(
    row: &TenantRow,
    key: Option<&SlotKeyRow>,
    keyring: &Keyring,
) -> Result<Option<Slots>, RegistryError> {
    if row.variant != "shared" {
        return Ok(None);
    }
    let is_its =
        |key: &&SlotKeyRow| key.cluster == row.cluster && key.database_name == row.database_name;
    let key = key
        .filter(is_its)
        .ok_or_else(|| unusable(&row.id, "variant", "its database has no key for slots"))?;
    Ok(Some(Slots {
        token: row.token.as_str().into(),
        key: Arc::new(slot_key_of(key, keyring)?),
    }))
}

/// What opens the slots of a database.
///
/// # Errors
/// [`RegistryError::Row`] or [`RegistryError::Open`].
pub fn slot_key_of(row: &SlotKeyRow, keyring: &Keyring) -> Result<SlotKey, RegistryError> {
    let (owner, what) = slot_key_purpose(&row.cluster, &row.database_name);
    let purpose = Purpose {
        owner: &owner,
        what: &what,
    };
    let opened = keyring.open(purpose, Sealed(&row.sealed));
    let opened = opened.map_err(|source| RegistryError::Open {
        owner: format!("cluster {}", row.cluster),
        what: what.clone(),
        source,
    })?;
    SlotKey::from_text(&opened).map_err(|error| RegistryError::Row {
        what: format!("{what} of cluster {}", row.cluster),
        problem: error.to_string(),
    })
}

/// What the key of a database's slots is sealed for: owner and what.
pub fn slot_key_purpose(cluster: &str, database: &str) -> (String, String) {
    (format!("cluster:{cluster}"), format!("slots:{database}"))
}

fn open(
    row: &TenantRow,
    what: &str,
    sealed: &[u8],
    keyring: &Keyring,
) -> Result<Secret, RegistryError> {
    let owner = format!("tenant:{}", row.id);
    let purpose = Purpose {
        owner: &owner,
        what,
    };
    let failed = |source| RegistryError::Open {
        owner: format!("tenant {}", row.id),
        what: what.to_owned(),
        source,
    };
    let opened = keyring.open(purpose, Sealed(sealed)).map_err(failed)?;
    text_of(&opened).ok_or_else(|| unusable(&row.id, what, "no text"))
}

fn text_of(opened: &[u8]) -> Option<Secret> {
    let text = String::from_utf8(opened.to_vec()).ok()?;
    Some(Secret::new(text))
}

fn word<T: std::str::FromStr<Err: std::fmt::Display>>(
    row: &TenantRow,
    field: &str,
    text: Option<&str>,
) -> Result<Option<T>, RegistryError> {
    let parsed = text.map(str::parse).transpose();
    parsed.map_err(|error: T::Err| unusable(&row.id, field, error))
}

/// What the tenant has agreed on, its own words over its plan's.
fn terms(row: &TenantRow, plan: Option<&Plan>) -> Terms {
    let given = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
    let own = (
        given(row.queries_per_month),
        given(row.transactions_per_month),
    );
    Terms {
        trial_ends_at: row.trial_ends_at.map(system_time),
        made_at: Some(system_time(row.created_at)),
        ..Terms::new((&row.plan, plan), own)
    }
}

/// A plan's numbers, where the tenant has none of its own. They were checked where they were written.
struct Planned<'a>(Option<&'a Plan>);

impl Planned<'_> {
    fn number(&self, own: Option<i32>, of: fn(&Plan) -> Option<u64>) -> Option<i32> {
        let planned = self.0.and_then(of);
        own.or_else(|| planned.and_then(|value| i32::try_from(value).ok()))
    }
}

fn limits(row: &TenantRow, plan: Option<&Plan>) -> Result<Limits, RegistryError> {
    let planned = Planned(plan);
    let defaults = Limits::default();
    let number = |field: &str, value: Option<i32>, default: u32| match value {
        Some(value) => u32::try_from(value).map_err(|error| unusable(&row.id, field, error)),
        None => Ok(default),
    };
    let size = planned.number(row.pool_size, |plan| plan.pool_size);
    let pool_size = number("pool_size", size, defaults.pool_size)?;
    Ok(Limits {
        max_client_connections: number(
            "max_client_connections",
            planned.number(row.max_client_connections, |plan| {
                plan.max_client_connections
            }),
            defaults.max_client_connections,
        )?,
        pool_size,
        min_pool_size: number("min_pool_size", row.min_pool_size, defaults.min_pool_size)?,
        guaranteed_servers: number(
            "guaranteed_servers",
            planned.number(row.guaranteed_servers, |plan| plan.guaranteed_servers),
            defaults.guaranteed_servers,
        )?,
        weight: number(
            "weight",
            planned.number(row.weight, |plan| plan.weight),
            defaults.weight,
        )?,
        max_prepared_statements: number(
            "max_prepared_statements",
            row.max_prepared_statements,
            defaults.max_prepared_statements,
        )?,
        max_pinned_servers: number(
            "max_pinned_servers",
            row.max_pinned_servers,
            Limits::pinned_of(pool_size),
        )?,
        max_waiting: number(
            "max_waiting",
            planned.number(row.max_waiting, |plan| plan.max_waiting),
            defaults.max_waiting,
        )?,
        max_storage_bytes: storage_limit(row, plan),
        caps: Caps {
            max_concurrent_queries: count(planned.number(row.max_concurrent_queries, |plan| {
                plan.max_concurrent_queries
            })),
            transactions_per_second: count(planned.number(row.transactions_per_second, |plan| {
                plan.transactions_per_second
            })),
            transactions_per_hour: count(
                planned.number(row.transactions_per_hour, |plan| plan.transactions_per_hour),
            ),
            bytes_per_second: bytes(row.bytes_per_second.or_else(|| {
                let planned = plan.and_then(|plan| plan.bytes_per_second);
                planned.and_then(|value| i64::try_from(value).ok())
            })),
            logins_per_second: count(
                planned.number(row.logins_per_second, |plan| plan.logins_per_second),
            ),
        },
    })
}

/// Bytes that a tenant's data may take, by its own words or its plan's; `None`: as many as it likes.
pub fn storage_limit(row: &TenantRow, plan: Option<&Plan>) -> Option<NonZeroU64> {
    let planned = || i64::try_from(plan?.storage_bytes?).ok();
    bytes(row.max_storage_bytes.or_else(planned))
}

/// A limit that is checked where it is written; 0 is none.
fn count(value: Option<i32>) -> Option<NonZeroU32> {
    u32::try_from(value?).ok().and_then(NonZeroU32::new)
}

fn bytes(value: Option<i64>) -> Option<NonZeroU64> {
    u64::try_from(value?).ok().and_then(NonZeroU64::new)
}

fn milliseconds(value: i64) -> Duration {
    Duration::from_millis(u64::try_from(value).unwrap_or(0))
}

fn timeouts(row: &TenantRow) -> Timeouts {
    let defaults = Timeouts::default();
    let time = |value: Option<i64>, default: Option<Duration>| match value {
        Some(value) => Some(milliseconds(value)).filter(|time| !time.is_zero()),
        None => default,
    };
    // Others wait for the slot that an open transaction holds.
    let idle_transaction = match row.variant.as_str() {
        "shared" => Some(SLOT_IDLE),
        _ => defaults.idle_transaction,
    };
    Timeouts {
        server_idle: time(row.server_idle_timeout, defaults.server_idle),
        server_lifetime: time(row.server_lifetime, defaults.server_lifetime),
        server_check_delay: time(row.server_check_delay, defaults.server_check_delay),
        query_wait: time(row.query_wait_timeout, defaults.query_wait),
        query: time(row.query_timeout, defaults.query),
        transaction: time(row.transaction_timeout, defaults.transaction),
        idle_transaction: time(row.idle_transaction_timeout, idle_transaction),
        client_idle: time(row.client_idle_timeout, defaults.client_idle),
        client_write: time(row.client_write_timeout, defaults.client_write),
    }
}

fn reads(row: &TenantRow) -> Result<Reads, RegistryError> {
    let default = Reads::default();
    let address = |text: &String| -> Result<_, RegistryError> {
        let replica = replica_url(text);
        let replica = replica.map_err(|error| unusable(&row.id, "read_replicas", error))?;
        Ok(replica.address)
    };
    let replicas = row.read_replicas.as_ref();
    let replicas = replicas.map(|texts| texts.iter().map(address).collect());
    Ok(Reads {
        split: row.read_splitting.unwrap_or(default.split),
        consistency: word(row, "consistency", row.consistency.as_deref())?
            .unwrap_or(default.consistency),
        replicas: replicas.transpose()?,
        failover_hold: row
            .failover_hold
            .map_or(default.failover_hold, milliseconds),
    })
}

fn settings(row: &TenantRow) -> Vec<(Box<str>, Box<str>)> {
    let pair = |name: &str, value: &str| (Box::from(name), Box::from(value));
    let mut settings = Vec::new();
    if row.tier == "schema" {
        let schema = row.schema_name.as_deref().unwrap_or(&row.role);
        settings.push(pair("search_path", &crate::sql::quoted_name(schema)));
    }
    settings.extend(row.time_zone.as_ref().map(|zone| pair("TimeZone", zone)));
    settings.extend(row.tenant_setting.as_ref().map(|name| pair(name, &row.id)));
    settings.extend(row.settings.iter().map(|(name, value)| pair(name, value)));
    settings
}

fn api_key(row: &KeyRow) -> Result<ApiKey, RegistryError> {
    let wrong = |problem: &dyn std::fmt::Display| RegistryError::Row {
        what: format!("API key {}", row.id),
        problem: problem.to_string(),
    };
    let scope = match row.scope.as_str() {
        "read_write" => Scope::ReadWrite,
        "read_only" => Scope::ReadOnly,
        other => return Err(wrong(&format_args!("scope {other:?}"))),
    };
    Ok(ApiKey {
        id: KeyId::new(&row.id).map_err(|error| wrong(&error))?,
        verifier: row.verifier.parse().map_err(|error| wrong(&error))?,
        scope: scope.held_to(&row.permissions),
        allow: row
            .allow
            .iter()
            .map(|text| text.parse().map_err(|error| wrong(&error)))
            .collect::<Result<_, _>>()?,
        not_before: row.not_before.map(system_time),
        expires: row.expires_at.map(system_time),
        max_client_connections: row
            .max_client_connections
            .map(|max| u32::try_from(max).unwrap_or(0)),
        // What the column should not hold is taken for the least there is.
        rate_limit_per_hour: row
            .rate_limit_per_hour
            .map(|limit| u32::try_from(limit).ok().and_then(NonZeroU32::new))
            .map(|limit| limit.unwrap_or(NonZeroU32::MIN)),
        caps: Caps {
            max_concurrent_queries: count(row.max_concurrent_queries),
            transactions_per_second: count(row.transactions_per_second),
            transactions_per_hour: count(row.transactions_per_hour),
            bytes_per_second: bytes(row.bytes_per_second),
            logins_per_second: count(row.logins_per_second),
        },
        is_recorded: true,
    })
}

fn system_time(time: OffsetDateTime) -> SystemTime {
    time.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_key_is_opened_for_its_own_database_alone() {
        let keyring = Keyring::parse(Keyring::new_line(1).unwrap().expose()).unwrap();
        let key = SlotKey::random(None);
        let (owner, what) = slot_key_purpose("main", "rows");
        let purpose = Purpose {
            owner: &owner,
            what: &what,
        };
        let sealed = keyring.seal(purpose, key.to_text().as_bytes()).unwrap();
        let mut row = SlotKeyRow {
            cluster: "main".to_owned(),
            database_name: "rows".to_owned(),
            id: 1,
            sealed,
            created_at: OffsetDateTime::now_utc(),
        };
        assert_eq!(slot_key_of(&row, &keyring).unwrap(), key);
        row.database_name = "others".to_owned();
        let error = slot_key_of(&row, &keyring).unwrap_err();
        assert!(matches!(error, RegistryError::Open { .. }), "{error}");
    }
}

//! What may be changed of a tenant, and within which bounds.

use super::ControlError;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, ops::RangeInclusive};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use utoipa::ToSchema;

/// A field that may be left as it is (`None`), go back to its default (`Some(None)`, JSON `null`),
/// or get a value.
pub type Patch<T> = Option<Option<T>>;

/// StartupMessage parameters that are no settings; `replication` would even make a walsender.
const NO_SETTINGS: [&str; 4] = ["user", "database", "replication", "options"];
const TEXT_BYTES_MAX: usize = 1000;
const SETTINGS_MAX: usize = 100;
const METADATA_BYTES_MAX: usize = 64 * 1024;
const QUOTA_MAX: i64 = 1_000_000_000_000_000;
/// A year in milliseconds.
pub(super) const TIME_MAX: i64 = 365 * 24 * 3_600_000;

/// Where one of these changes, the tenant's limits change.
pub(super) const LIMITS: [&str; 17] = [
    "pool_size",
    "min_pool_size",
    "guaranteed_servers",
    "weight",
    "max_client_connections",
    "max_pinned_servers",
    "max_prepared_statements",
    "max_concurrent_queries",
    "max_waiting",
    "transactions_per_second",
    "transactions_per_hour",
    "bytes_per_second",
    "logins_per_second",
    "max_storage_bytes",
    "queries_per_month",
    "transactions_per_month",
    "plan",
];

pub(super) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Patch<T>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A change of a tenant: absent fields stay, `null` is the default. Times are milliseconds, 0 is
/// none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "a field is named as in proxy.toml")]
pub struct TenantChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub owner_email: Patch<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub pool_mode: Patch<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub pin: Patch<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub pool_size: Patch<i32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub min_pool_size: Patch<i32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub guaranteed_servers: Patch<i32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub weight: Patch<i32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub max_client_connections: Patch<i32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub max_pinned_servers: Patch<i32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub max_prepared_statements: Patch<i32>,
    /// Transactions that run at the same time; 0 is no limit, as in the next ones but `max_waiting`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub max_concurrent_queries: Patch<i32>,
    /// Clients that wait for that; 0 is nobody.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub max_waiting: Patch<i32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub transactions_per_second: Patch<i32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub transactions_per_hour: Patch<i32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub bytes_per_second: Patch<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub logins_per_second: Patch<i32>,
    /// Bytes that its data may take; with as many it may only read and free space.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub max_storage_bytes: Patch<i64>,
    /// Of its plan, where it is not given; 0 is no limit.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub queries_per_month: Patch<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub transactions_per_month: Patch<i64>,
    /// When its trial ends: "2027-01-31T00:00:00Z"; without one it is on none.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub trial_ends_at: Patch<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub server_idle_timeout: Patch<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub server_lifetime: Patch<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub server_check_delay: Patch<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub query_wait_timeout: Patch<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub query_timeout: Patch<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub transaction_timeout: Patch<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub idle_transaction_timeout: Patch<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub client_idle_timeout: Patch<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub client_write_timeout: Patch<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub read_splitting: Patch<bool>,
    /// `tenant`, `session` or `eventual`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub consistency: Patch<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub failover_hold: Patch<i64>,
    /// Some of the cluster's, by their URLs; replaces all of them.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub read_replicas: Patch<Vec<String>>,
    /// Replaces all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forced: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub time_zone: Patch<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub tenant_setting: Patch<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_update: Option<bool>,
    /// Replaces all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Map<String, Value>>,
}

/// A change of how a tenant's servers are shared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "a field is named as in proxy.toml")]
pub struct PoolChange {
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub pool_mode: Patch<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub pool_size: Patch<i32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub min_pool_size: Patch<i32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub guaranteed_servers: Patch<i32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub weight: Patch<i32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub max_client_connections: Patch<i32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub max_pinned_servers: Patch<i32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub max_concurrent_queries: Patch<i32>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub max_waiting: Patch<i32>,
}

impl From<PoolChange> for TenantChange {
    fn from(change: PoolChange) -> Self {
        Self {
            pool_mode: change.pool_mode,
            pool_size: change.pool_size,
            min_pool_size: change.min_pool_size,
            guaranteed_servers: change.guaranteed_servers,
            weight: change.weight,
            max_client_connections: change.max_client_connections,
            max_pinned_servers: change.max_pinned_servers,
            max_concurrent_queries: change.max_concurrent_queries,
            max_waiting: change.max_waiting,
            ..Self::default()
        }
    }
}

fn invalid(field: &str, problem: impl Into<String>) -> ControlError {
    ControlError::Invalid {
        field: field.to_owned(),
        problem: problem.into(),
    }
}

pub(super) fn number<T: PartialOrd + std::fmt::Display + Copy>(
    field: &str,
    value: Patch<T>,
    bounds: &RangeInclusive<T>,
) -> Result<(), ControlError> {
    match value.flatten() {
        Some(value) if !bounds.contains(&value) => Err(invalid(
            field,
            format!("{value}: it must be {} to {}", bounds.start(), bounds.end()),
        )),
        _ => Ok(()),
    }
}

fn text(field: &str, value: Option<&str>) -> Result<(), ControlError> {
    match value {
        Some(text) if text.len() > TEXT_BYTES_MAX => Err(invalid(
            field,
            format!("it has more than {TEXT_BYTES_MAX} bytes"),
        )),
        Some(text) if text.contains('\0') => Err(invalid(field, "it has a NUL")),
        _ => Ok(()),
    }
}

fn some(value: Option<&Option<String>>) -> Option<&str> {
    value.and_then(Option::as_deref)
}

fn one_of(field: &str, value: Option<&str>, allowed: &[&str]) -> Result<(), ControlError> {
    match value {
        Some(value) if !allowed.contains(&value) => {
            let allowed = allowed.join("\", \"");
            Err(invalid(field, format!("it must be one of \"{allowed}\"")))
        }
        _ => Ok(()),
    }
}

impl TenantChange {
    /// That everything in it can be.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] names the first field that can't.
    pub fn check(&self) -> Result<(), ControlError> {
        if let Some(name) = &self.name {
            text("name", Some(name))?;
            if name.trim().is_empty() {
                return Err(invalid("name", "it is empty"));
            }
        }
        one_of(
            "pool_mode",
            some(self.pool_mode.as_ref()),
            &["session", "transaction", "statement"],
        )?;
        one_of("pin", some(self.pin.as_ref()), &["allow", "refuse"])?;
        one_of(
            "consistency",
            some(self.consistency.as_ref()),
            &["tenant", "session", "eventual"],
        )?;
        number("pool_size", self.pool_size, &(1..=10_000))?;
        number("min_pool_size", self.min_pool_size, &(0..=10_000))?;
        number("guaranteed_servers", self.guaranteed_servers, &(0..=10_000))?;
        number("weight", self.weight, &(1..=1000))?;
        let clients = &(1..=1_000_000);
        number(
            "max_client_connections",
            self.max_client_connections,
            clients,
        )?;
        number("max_pinned_servers", self.max_pinned_servers, &(1..=10_000))?;
        let statements = &(1..=100_000);
        number(
            "max_prepared_statements",
            self.max_prepared_statements,
            statements,
        )?;
        for (field, value) in [
            ("max_concurrent_queries", self.max_concurrent_queries),
            ("max_waiting", self.max_waiting),
            ("transactions_per_second", self.transactions_per_second),
            ("logins_per_second", self.logins_per_second),
        ] {
            number(field, value, &(0..=1_000_000))?;
        }
        let hour = &(0..=1_000_000_000);
        number("transactions_per_hour", self.transactions_per_hour, hour)?;
        let bytes = &(0..=1_000_000_000_000);
        number("bytes_per_second", self.bytes_per_second, bytes)?;
        for (field, value) in [
            ("max_storage_bytes", self.max_storage_bytes),
            ("queries_per_month", self.queries_per_month),
            ("transactions_per_month", self.transactions_per_month),
        ] {
            number(field, value, &(0..=QUOTA_MAX))?;
        }
        if let Some(text) = some(self.trial_ends_at.as_ref())
            && OffsetDateTime::parse(text, &Rfc3339).is_err()
        {
            let problem = format!("{text:?} is no time; write \"2027-01-31T00:00:00Z\"");
            return Err(invalid("trial_ends_at", problem));
        }
        for (field, value) in self.times() {
            number(field, value, &(0..=TIME_MAX))?;
        }
        self.check_texts()
    }

    fn times(&self) -> [(&'static str, Patch<i64>); 10] {
        [
            ("server_idle_timeout", self.server_idle_timeout),
            ("server_lifetime", self.server_lifetime),
            ("server_check_delay", self.server_check_delay),
            ("query_wait_timeout", self.query_wait_timeout),
            ("query_timeout", self.query_timeout),
            ("transaction_timeout", self.transaction_timeout),
            ("idle_transaction_timeout", self.idle_transaction_timeout),
            ("client_idle_timeout", self.client_idle_timeout),
            ("client_write_timeout", self.client_write_timeout),
            ("failover_hold", self.failover_hold),
        ]
    }

    fn check_texts(&self) -> Result<(), ControlError> {
        let email = some(self.owner_email.as_ref());
        text("owner_email", email)?;
        let is_email = |text: &str| {
            let parts = text.split_once('@');
            parts.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
        };
        if email.is_some_and(|email| !is_email(email)) {
            return Err(invalid("owner_email", "it is no e-mail address"));
        }
        text("plan", self.plan.as_deref())?;
        text("time_zone", some(self.time_zone.as_ref()))?;
        if let Some(name) = some(self.tenant_setting.as_ref()) {
            setting_name("tenant_setting", name)?;
            if !name.contains('.') {
                let problem = "a setting of your own has a dot, such as \"app.tenant_id\"";
                return Err(invalid("tenant_setting", problem));
            }
        }
        let settings = self.settings.iter().flatten();
        for (name, value) in settings {
            setting_name("settings", name)?;
            text("settings", Some(value))?;
        }
        for name in self.forced.iter().flatten() {
            setting_name("forced", name)?;
        }
        let counts = [
            self.settings.as_ref().map(BTreeMap::len),
            self.forced.as_ref().map(Vec::len),
        ];
        if counts
            .into_iter()
            .flatten()
            .any(|count| count > SETTINGS_MAX)
        {
            return Err(invalid("settings", format!("more than {SETTINGS_MAX}")));
        }
        let metadata = self.metadata.clone().map(Value::Object);
        if metadata.is_some_and(|value| value.to_string().len() > METADATA_BYTES_MAX) {
            let problem = format!("it has more than {METADATA_BYTES_MAX} bytes");
            return Err(invalid("metadata", problem));
        }
        Ok(())
    }

    /// The columns that it names.
    pub(super) fn columns(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        }
    }
}

fn setting_name(field: &str, name: &str) -> Result<(), ControlError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    let lower = name.to_ascii_lowercase();
    let problem = if name.is_empty() || name.len() > 63 || !name.chars().all(allowed) {
        "a setting has 1 to 63 letters, digits, \"_\" and \".\""
    } else if NO_SETTINGS.contains(&&*lower) || lower.starts_with("_pq_.") {
        "that is a parameter of the protocol"
    } else if lower == "search_path" && field == "settings" {
        "it belongs to the tenant's place"
    } else {
        return Ok(());
    };
    Err(invalid(field, format!("{name:?}: {problem}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problem(value: Value) -> String {
        let change: TenantChange = serde_json::from_value(value).unwrap();
        change.check().unwrap_err().to_string()
    }

    #[test]
    fn absent_stays_null_is_the_default() {
        let change: TenantChange =
            serde_json::from_value(json!({"pool_size": null, "plan": "pro"})).unwrap();
        assert_eq!(change.pool_size, Some(None));
        assert_eq!(change.pool_mode, None);
        let columns = Value::Object(change.columns());
        assert_eq!(columns, json!({"pool_size": null, "plan": "pro"}));
        assert_eq!(TenantChange::default().columns(), Map::new());
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (value, says) in [
            (
                json!({"pool_size": 0}),
                "pool_size: 0: it must be 1 to 10000",
            ),
            (
                json!({"pool_mode": "magic"}),
                "pool_mode: it must be one of",
            ),
            (json!({"query_timeout": -1}), "query_timeout: -1"),
            (json!({"failover_hold": -1}), "failover_hold: -1"),
            (
                json!({"consistency": "strong"}),
                "consistency: it must be one of \"tenant\", \"session\", \"eventual\"",
            ),
            (json!({"owner_email": "nobody"}), "owner_email"),
            (json!({"name": " "}), "name"),
            (json!({"settings": {"a b": "1"}}), "settings: \"a b\""),
            (json!({"settings": {"Replication": "1"}}), "protocol"),
            (json!({"settings": {"search_path": "x"}}), "place"),
            (json!({"tenant_setting": "tenant"}), "dot"),
            (json!({"time_zone": "a\u{0}"}), "NUL"),
        ] {
            let problem = problem(value);
            assert!(problem.contains(says), "{problem}");
        }
        let unknown = serde_json::from_value::<TenantChange>(json!({"pol_size": 3}));
        assert!(unknown.unwrap_err().to_string().contains("pol_size"));
    }
}

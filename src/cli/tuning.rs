//! `KEY=VALUE` on the command line: changes of a tenant; and how a cluster's replicas are used.

use super::UsageError;
use crate::control::{StandbysChange, TenantChange};
use serde_json::{Map, Value, json};

/// How a value is written.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Number,
    /// `30s`, kept as milliseconds.
    Time,
    /// `2027-01-31T00:00:00Z` or `2027-01-31`; nothing for none.
    Moment,
    /// `true` or `false`.
    Switch,
    /// Names with commas between them.
    Names,
    Json,
}

const FIELDS: [(&str, Form); 41] = [
    ("name", Form::Text),
    ("owner_email", Form::Text),
    ("plan", Form::Text),
    ("pool_mode", Form::Text),
    ("pin", Form::Text),
    ("pool_size", Form::Number),
    ("min_pool_size", Form::Number),
    ("guaranteed_servers", Form::Number),
    ("weight", Form::Number),
    ("max_client_connections", Form::Number),
    ("max_pinned_servers", Form::Number),
    ("max_prepared_statements", Form::Number),
    ("max_concurrent_queries", Form::Number),
    ("max_waiting", Form::Number),
    ("transactions_per_second", Form::Number),
    ("transactions_per_hour", Form::Number),
    ("bytes_per_second", Form::Number),
    ("logins_per_second", Form::Number),
    ("max_storage_bytes", Form::Number),
    ("queries_per_month", Form::Number),
    ("transactions_per_month", Form::Number),
    ("trial_ends_at", Form::Moment),
    ("server_idle_timeout", Form::Time),
    ("server_lifetime", Form::Time),
    ("server_check_delay", Form::Time),
    ("query_wait_timeout", Form::Time),
    ("query_timeout", Form::Time),
    ("transaction_timeout", Form::Time),
    ("idle_transaction_timeout", Form::Time),
    ("client_idle_timeout", Form::Time),
    ("client_write_timeout", Form::Time),
    ("read_splitting", Form::Switch),
    ("consistency", Form::Text),
    ("failover_hold", Form::Time),
    ("read_replicas", Form::Names),
    ("time_zone", Form::Text),
    ("tenant_setting", Form::Text),
    ("auto_update", Form::Switch),
    ("forced", Form::Names),
    ("settings", Form::Json),
    ("metadata", Form::Json),
];

/// How a cluster's servers are used: options by these names.
const STANDBYS: [(&str, Form); 10] = [
    ("primary_weight", Form::Number),
    ("replica_lag_max", Form::Time),
    ("replica_lag_bytes_max", Form::Number),
    ("replica_fallback", Form::Switch),
    ("replica_slow_start", Form::Time),
    ("watch_interval", Form::Time),
    ("watch_timeout", Form::Time),
    ("max_running_statements", Form::Number),
    ("adaptive_running_statements", Form::Switch),
    ("min_running_statements", Form::Number),
];

/// Reads how a cluster's servers are to be used, of names and values.
///
/// # Errors
/// [`UsageError::Change`] names the one that can't be read.
pub(super) fn standbys(given: &[(&str, &str)]) -> Result<StandbysChange, UsageError> {
    let mut fields = Map::new();
    for (key, text) in given {
        let option = || format!("--{} {text}", key.replace('_', "-"));
        let form = STANDBYS.iter().find(|(name, _)| name == key);
        let form = form.map_or(Form::Text, |(_, form)| *form);
        let value = value(form, text)
            .ok_or_else(|| UsageError::Change(option(), expected(form).to_owned()))?;
        fields.insert((*key).to_owned(), value);
    }
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| UsageError::Change("cluster set".to_owned(), error.to_string()))
}

/// Reads changes such as `pool_size=10`, `query_timeout=30s`, `pin=default`.
///
/// # Errors
/// [`UsageError::Change`] names the one that can't be read.
pub(super) fn change(pairs: &[String]) -> Result<TenantChange, UsageError> {
    let mut fields = Map::new();
    for pair in pairs {
        let wrong = |problem: String| UsageError::Change(pair.clone(), problem);
        let (key, text) = pair
            .split_once('=')
            .ok_or_else(|| wrong("write KEY=VALUE".to_owned()))?;
        let form = FIELDS.iter().find(|(name, _)| *name == key);
        let (_, form) = form.ok_or_else(|| {
            let names: Vec<_> = FIELDS.iter().map(|(name, _)| *name).collect();
            wrong(format!(
                "there is no such key; there are {}",
                names.join(", ")
            ))
        })?;
        let value = value(*form, text).ok_or_else(|| wrong(expected(*form).to_owned()))?;
        if fields.insert(key.to_owned(), value).is_some() {
            return Err(wrong("it is given twice".to_owned()));
        }
    }
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| UsageError::Change(pairs.join(" "), error.to_string()))
}

fn value(form: Form, text: &str) -> Option<Value> {
    if text == "default" {
        return Some(Value::Null);
    }
    match form {
        Form::Number => text.parse::<i64>().ok().map(|number| json!(number)),
        Form::Time if text == "0" => Some(json!(0)),
        Form::Time => {
            let time = humantime::parse_duration(text).ok()?;
            i64::try_from(time.as_millis()).ok().map(|ms| json!(ms))
        }
        Form::Moment if text.is_empty() => Some(Value::Null),
        Form::Moment if text.len() == "2027-01-31".len() => {
            Some(json!(format!("{text}T00:00:00Z")))
        }
        Form::Text | Form::Moment => Some(json!(text)),
        Form::Switch => text.parse::<bool>().ok().map(|is_on| json!(is_on)),
        Form::Names => {
            let names = text.split(',').map(str::trim);
            Some(json!(
                names.filter(|name| !name.is_empty()).collect::<Vec<_>>()
            ))
        }
        Form::Json => serde_json::from_str(text).ok(),
    }
}

fn expected(form: Form) -> &'static str {
    match form {
        Form::Text => "write a text",
        Form::Number => "write a number, or \"default\"",
        Form::Time => "write a time such as \"30s\", \"0\" for none, or \"default\"",
        Form::Moment => "write a time such as \"2027-01-31T00:00:00Z\", or nothing for none",
        Form::Switch => "write \"true\" or \"false\", or \"default\"",
        Form::Names => "write names with commas between them",
        Form::Json => "write JSON such as '{\"work_mem\": \"64MB\"}'",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[&str]) -> Result<TenantChange, String> {
        let pairs: Vec<String> = pairs.iter().map(|&pair| pair.to_owned()).collect();
        change(&pairs).map_err(|error| error.to_string())
    }

    #[test]
    fn changes_are_read_by_their_form() {
        let change = read(&[
            "pool_size=10",
            "query_timeout=30s",
            "transaction_timeout=0",
            "pin=default",
            "forced=TimeZone, role",
            "settings={\"work_mem\": \"64MB\"}",
            "auto_update=false",
            "read_splitting=false",
            "consistency=session",
            "failover_hold=5s",
            "read_replicas=postgres://a, postgres://b:5433",
        ])
        .unwrap();
        assert_eq!(change.pool_size, Some(Some(10)));
        assert_eq!(change.query_timeout, Some(Some(30_000)));
        assert_eq!(change.transaction_timeout, Some(Some(0)));
        assert_eq!(change.pin, Some(None));
        assert_eq!(change.forced.unwrap(), ["TimeZone", "role"]);
        assert_eq!(change.settings.unwrap()["work_mem"], "64MB");
        assert_eq!(change.auto_update, Some(false));
        assert_eq!(change.read_splitting, Some(Some(false)));
        assert_eq!(change.consistency, Some(Some("session".to_owned())));
        assert_eq!(change.failover_hold, Some(Some(5000)));
        let replicas = change.read_replicas.unwrap().unwrap();
        assert_eq!(replicas, ["postgres://a", "postgres://b:5433"]);
    }

    #[test]
    fn every_field_of_a_change_has_a_key() {
        let all = serde_json::to_value(TenantChange::default()).unwrap();
        assert_eq!(all, json!({}), "absent fields are left out");
        for (name, _) in FIELDS {
            let one = Map::from_iter([(name.to_owned(), Value::Null)]);
            let read = serde_json::from_value::<TenantChange>(Value::Object(one));
            assert!(read.is_ok(), "{name}: {read:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        for (pair, says) in [
            ("pool_size", "write KEY=VALUE"),
            ("pool_size=ten", "write a number"),
            ("query_timeout=30", "\"30s\""),
            ("colour=red", "no such key; there are name"),
            ("settings=x", "write JSON"),
        ] {
            let error = read(&[pair]).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        assert!(
            read(&["pin=allow", "pin=refuse"])
                .unwrap_err()
                .contains("twice")
        );
    }
}

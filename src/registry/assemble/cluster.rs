//! From the row of a cluster to what the data plane knows.

use super::{milliseconds, text_of};
use crate::{
    config::{cluster_url, replica_url},
    crypto::{Keyring, Purpose, Sealed},
    registry::{ClusterRow, RegistryError},
    tenant::{Cluster, ClusterName, Login, Standbys, UpstreamTls, Watch},
};
use std::path::PathBuf;
use time::OffsetDateTime;

/// What a cluster's admin password is sealed for.
const ADMIN: &str = "admin";

/// Where servers are looked at from: every one has it.
const WATCH_DATABASE: &str = "postgres";

/// The cluster of a row, for a proxy that stands nowhere. As whom it is watched [`watch_of`] says.
///
/// # Errors
/// [`RegistryError::Row`].
pub fn cluster_of(row: &ClusterRow) -> Result<Cluster, RegistryError> {
    let what = format!("cluster {}", row.name);
    let wrong = |problem: &dyn std::fmt::Display| RegistryError::Row {
        what: what.clone(),
        problem: problem.to_string(),
    };
    let ca = row.tls_ca.as_ref().map(PathBuf::from);
    Ok(Cluster {
        name: ClusterName::new(&row.name).map_err(|error| wrong(&error))?,
        primary: cluster_url(&row.primary_url).map_err(|error| wrong(&error))?,
        replicas: row
            .replica_urls
            .iter()
            .map(|text| replica_url(text).map_err(|error| wrong(&error)))
            .collect::<Result<_, _>>()?,
        standbys: standbys(row),
        is_paused: row
            .paused_until
            .is_some_and(|until| until > OffsetDateTime::now_utc()),
        watch: None,
        max_server_connections: u32::try_from(row.max_server_connections).unwrap_or(1),
        reserved_servers: 0,
        max_parallel_connects: u32::try_from(row.max_parallel_connects).unwrap_or(1),
        max_running_statements: row
            .max_running_statements
            .and_then(|limit| u32::try_from(limit).ok())
            .unwrap_or_default(),
        adaptive_running_statements: row
            .adaptive_running_statements
            .unwrap_or(row.max_running_statements.is_none()),
        min_running_statements: row
            .min_running_statements
            .and_then(|limit| u32::try_from(limit).ok())
            .unwrap_or(Cluster::MIN_RUNNING_STATEMENTS),
        connect_timeout: milliseconds(row.connect_timeout_ms),
        tls: match row.tls.as_str() {
            "disable" => UpstreamTls::Disable,
            "require" => UpstreamTls::Require,
            "verify-ca" => UpstreamTls::VerifyCa(ca),
            "verify-full" => UpstreamTls::VerifyFull(ca),
            other => return Err(wrong(&format_args!("tls {other:?}"))),
        },
        client_certificate: None,
    })
}

/// As whom a cluster's servers are watched: its admin, whom its locks are watched as, too.
///
/// # Errors
/// [`RegistryError::Row`] or [`RegistryError::Open`].
pub fn watch_of(row: &ClusterRow, keyring: &Keyring) -> Result<Watch, RegistryError> {
    let owner = format!("cluster:{}", row.name);
    let purpose = Purpose {
        owner: &owner,
        what: ADMIN,
    };
    let open = |sealed: &[u8]| {
        let opened = keyring.open(purpose, Sealed(sealed));
        let opened = opened.map_err(|source| RegistryError::Open {
            owner: format!("cluster {}", row.name),
            what: ADMIN.to_owned(),
            source,
        })?;
        text_of(&opened).ok_or_else(|| RegistryError::Row {
            what: format!("admin of cluster {}", row.name),
            problem: "no text".to_owned(),
        })
    };
    Ok(Watch {
        login: Login {
            role: row.admin_role.as_str().into(),
            password: row.admin_password.as_deref().map(open).transpose()?,
        },
        database: WATCH_DATABASE.into(),
    })
}

/// What the columns hold is in its bounds: they check it.
fn standbys(row: &ClusterRow) -> Standbys {
    let default = Standbys::default();
    let time = |value: Option<i64>, default| value.map_or(default, milliseconds);
    Standbys {
        primary_weight: row.primary_weight.map_or(default.primary_weight, |weight| {
            u32::try_from(weight).unwrap_or(0)
        }),
        lag_bytes_max: row
            .replica_lag_bytes_max
            .and_then(|bytes| u64::try_from(bytes).ok())
            .filter(|bytes| *bytes != 0),
        lag_max: match row.replica_lag_max {
            Some(value) => Some(milliseconds(value)).filter(|time| !time.is_zero()),
            None => default.lag_max,
        },
        fallback: row.replica_fallback.unwrap_or(default.fallback),
        watch_interval: time(row.watch_interval, default.watch_interval),
        watch_timeout: time(row.watch_timeout, default.watch_timeout),
        slow_start: time(row.replica_slow_start, default.slow_start),
        region: None,
    }
}

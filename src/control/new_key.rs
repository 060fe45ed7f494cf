//! A key to be made, and whether it can be.

use super::ControlError;
use crate::{
    registry::KeyRow,
    tenant::{Caps, Scope},
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use time::OffsetDateTime;
use utoipa::ToSchema;

const NAME_BYTES_MAX: usize = 200;
const LIST_MAX: usize = 100;

/// A key to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewKey {
    /// For people.
    pub name: String,
    /// `read_write` (where nothing is said) or `read_only`: it lands on a role that can't write.
    pub scope: Option<String>,
    /// `read`: it only reads, so its scope is `read_only`; `write`: it reads and writes. Any other
    /// word is kept for the tenant's own applications, and pgusher makes nothing of it. None: what
    /// its scope says.
    pub permissions: Vec<String>,
    /// Networks from which it may be used (`10.0.0.0/8`, `192.0.2.7`); empty: everywhere.
    pub allow: Vec<String>,
    /// New connections and requests of the admin API in an hour, together, in each proxy: at once as
    /// many, then one more each time that this part of an hour has passed (53400, HTTP 429).
    pub rate_limit_per_hour: Option<i32>,
    /// Clients that use it at the same time.
    pub max_client_connections: Option<i32>,
    /// Transactions of its clients that run at the same time, in each proxy; more wait.
    pub max_concurrent_queries: Option<i32>,
    /// Transactions of its clients in a second, in each proxy; more wait a little, then 53400.
    pub transactions_per_second: Option<i32>,
    /// Transactions of its clients in an hour, in each proxy: at once as many, then one more each time that
    /// this part of an hour has passed (53400). `rate_limit_per_hour` is of connections.
    pub transactions_per_hour: Option<i32>,
    /// Bytes of its clients in a second, in both directions, in each proxy.
    pub bytes_per_second: Option<i64>,
    /// Logins with it in a second, in each proxy; more wait a little, then 53400.
    pub logins_per_second: Option<i32>,
    /// Not valid before.
    #[serde(with = "time::serde::rfc3339::option")]
    pub not_before: Option<OffsetDateTime>,
    /// Not valid from then on.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
}

impl NewKey {
    /// One that only reads.
    pub(super) fn reader() -> Self {
        Self {
            name: "read-only".to_owned(),
            scope: Some("read_only".to_owned()),
            ..Self::default()
        }
    }

    /// One like this.
    pub(super) fn like(row: &KeyRow) -> Self {
        // 0 is no limit, as NULL is.
        let limit = |limit: Option<i32>| limit.filter(|limit| *limit != 0);
        Self {
            name: row.name.clone(),
            scope: Some(row.scope.clone()),
            permissions: row.permissions.clone(),
            allow: row.allow.clone(),
            rate_limit_per_hour: row.rate_limit_per_hour,
            max_client_connections: row.max_client_connections,
            max_concurrent_queries: limit(row.max_concurrent_queries),
            transactions_per_second: limit(row.transactions_per_second),
            transactions_per_hour: limit(row.transactions_per_hour),
            bytes_per_second: row.bytes_per_second.filter(|limit| *limit != 0),
            logins_per_second: limit(row.logins_per_second),
            not_before: row.not_before,
            expires_at: row.expires_at,
        }
    }

    /// That everything in it can be.
    ///
    /// # Errors
    /// [`ControlError::Invalid`].
    pub(super) fn check(&self, now: OffsetDateTime) -> Result<(), ControlError> {
        let wrong = |field: &str, problem: String| {
            Err(ControlError::Invalid {
                field: field.to_owned(),
                problem,
            })
        };
        if self.name.len() > NAME_BYTES_MAX {
            return wrong("name", format!("it has more than {NAME_BYTES_MAX} bytes"));
        }
        if !matches!(
            self.scope.as_deref(),
            None | Some("read_write" | "read_only")
        ) {
            return wrong(
                "scope",
                "it must be \"read_write\" or \"read_only\"".to_owned(),
            );
        }
        self.check_permissions()?;
        if self.permissions.len() > LIST_MAX || self.allow.len() > LIST_MAX {
            return wrong("allow", format!("more than {LIST_MAX} entries"));
        }
        if let Some(bad) = self.allow.iter().find(|text| network(text).is_none()) {
            return wrong(
                "allow",
                format!("{bad:?} is no network such as \"10.0.0.0/8\""),
            );
        }
        let numbers = [
            ("rate_limit_per_hour", self.rate_limit_per_hour),
            ("max_client_connections", self.max_client_connections),
        ];
        for (field, value) in numbers {
            if value.is_some_and(|value| value < 1) {
                return wrong(field, "it must be at least 1".to_owned());
            }
        }
        self.check_caps()?;
        if self.expires_at.is_some_and(|expires| expires <= now) {
            return wrong("expires_at", "it is in the past".to_owned());
        }
        match (self.not_before, self.expires_at) {
            (Some(from), Some(to)) if from >= to => {
                wrong("expires_at", "it is not after not_before".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// That what its clients may do is within bounds.
    fn check_caps(&self) -> Result<(), ControlError> {
        let count = i64::from(Caps::COUNT_MAX);
        let most = i64::try_from(Caps::BYTES_MAX).unwrap_or(i64::MAX);
        let caps = [
            (
                "max_concurrent_queries",
                self.max_concurrent_queries.map(i64::from),
                count,
            ),
            (
                "transactions_per_second",
                self.transactions_per_second.map(i64::from),
                count,
            ),
            (
                "transactions_per_hour",
                self.transactions_per_hour.map(i64::from),
                i64::from(Caps::HOUR_MAX),
            ),
            ("bytes_per_second", self.bytes_per_second, most),
            (
                "logins_per_second",
                self.logins_per_second.map(i64::from),
                count,
            ),
        ];
        for (field, value, most) in caps {
            if value.is_some_and(|value| !(1..=most).contains(&value)) {
                return Err(ControlError::Invalid {
                    field: field.to_owned(),
                    problem: format!("it must be 1 to {most}"),
                });
            }
        }
        Ok(())
    }

    /// That its permissions and its scope say the same.
    fn check_permissions(&self) -> Result<(), ControlError> {
        let wrong = |problem: String| {
            Err(ControlError::Invalid {
                field: "permissions".to_owned(),
                problem,
            })
        };
        let is_word = |word: &String| !word.is_empty() && word.len() <= NAME_BYTES_MAX;
        if !self.permissions.iter().all(is_word) {
            return wrong(format!("each must have 1 to {NAME_BYTES_MAX} bytes"));
        }
        let may_write = self.permissions.iter().any(|word| word == "write");
        let reads_only = Scope::ReadWrite.held_to(&self.permissions) == Scope::ReadOnly;
        match self.scope.as_deref() {
            Some("read_write") if reads_only => wrong(
                "\"read\" without \"write\" is not for the scope \"read_write\"; leave the scope out"
                    .to_owned(),
            ),
            Some("read_only") if may_write => wrong(
                "\"write\" is not for the scope \"read_only\"; give \"read\" alone".to_owned(),
            ),
            _ => Ok(()),
        }
    }

    /// As it is written: what is not said is what its permissions say.
    pub(super) fn scope(&self) -> &str {
        match self.scope.as_deref() {
            Some(scope) => scope,
            None => Scope::ReadWrite.held_to(&self.permissions).as_str(),
        }
    }

    /// Its networks as they are written.
    pub(super) fn networks(&self) -> Vec<String> {
        let networks = self.allow.iter().filter_map(|text| network(text));
        networks.map(|network| network.to_string()).collect()
    }

    /// Permissions that are the business of the tenant's own applications.
    pub fn foreign_permissions(&self) -> impl Iterator<Item = &str> {
        let all = self.permissions.iter().map(String::as_str);
        all.filter(|word| !matches!(*word, "read" | "write"))
    }
}

/// A network, or one address.
fn network(text: &str) -> Option<IpNet> {
    let one = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(one)
}

//! The replicas of a cluster: which, how they are used, and as whom they are watched.

use super::{Check, Checked, login::Source};
use crate::{
    config::{
        error::{Fault, Problem},
        location::At,
        raw,
        units::Period,
        url,
    },
    tenant::{Address, Cluster, Login, Reads, Replica, Standbys, Tenant, Watch},
};
use std::{sync::Arc, time::Duration};

/// The database to look at a server from, where nothing is said.
const MONITOR_DATABASE: &str = "postgres";

impl Check<'_> {
    /// The cluster's replicas: each address once, and none the primary's.
    pub(super) fn replicas(
        &mut self,
        at: At<'_>,
        primary: Option<&Address>,
        texts: &[String],
    ) -> Vec<Replica> {
        let at = at.key("replicas");
        if texts.len() > Replica::COUNT_MAX {
            let fault = Fault::Above {
                value: texts.len() as u64,
                other: "the most replicas of a cluster",
                limit: Replica::COUNT_MAX as u64,
            };
            self.note(at, fault);
            return Vec::new();
        }
        let mut replicas: Vec<Replica> = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let at = at.index(index);
            match url::parse_replica(text) {
                Ok(replica) => {
                    let mut others = replicas.iter().map(|other| &other.address).chain(primary);
                    if others.any(|other| *other == replica.address) {
                        let value = replica.address.to_string();
                        self.note(at, Fault::Duplicate { value });
                    }
                    replicas.push(replica);
                }
                Err(error) => self.note(at, Fault::ReplicaUrl(error)),
            }
        }
        replicas
    }

    /// How they are used by a proxy in this region.
    pub(super) fn standbys(
        &mut self,
        at: At<'_>,
        cluster: &raw::Cluster,
        region: Option<Box<str>>,
    ) -> Checked<Standbys> {
        let default = Standbys::default();
        let weight = self.number(
            at.key("primary_weight"),
            cluster.primary_weight,
            default.primary_weight,
            0..=Standbys::PRIMARY_WEIGHT_MAX,
        );
        let mut pace = |key: &'static str, given: Option<Period>, default: Duration| {
            let bounds = Standbys::WATCH_MIN..=Standbys::WATCH_MAX;
            match given {
                Some(Period(value)) if !bounds.contains(&value) => {
                    let (min, max) = bounds.into_inner();
                    self.problem(at.key(key), Fault::TimeRange { value, min, max })
                }
                Some(Period(value)) => Ok(value),
                None => Ok(default),
            }
        };
        let interval = pace(
            "watch_interval",
            cluster.watch_interval,
            default.watch_interval,
        );
        let timeout = pace(
            "watch_timeout",
            cluster.watch_timeout,
            default.watch_timeout,
        );
        let slow_start = cluster.replica_slow_start;
        Ok(Standbys {
            primary_weight: weight?,
            lag_bytes_max: cluster.replica_lag_bytes_max.filter(|bytes| *bytes != 0),
            lag_max: cluster
                .replica_lag_max
                .map_or(default.lag_max, Period::limit),
            fallback: cluster.replica_fallback.unwrap_or(default.fallback),
            watch_interval: interval?,
            watch_timeout: timeout?,
            slow_start: slow_start.map_or(default.slow_start, |Period(time)| time),
            region,
        })
    }

    /// As whom the cluster's servers are watched, where the file says.
    pub(super) fn watch(&mut self, at: At<'_>, cluster: &raw::Cluster) -> Checked<Option<Watch>> {
        let source = Source {
            names: [
                "monitor_password",
                "monitor_password_env",
                "monitor_password_file",
            ],
            inline: cluster.monitor_password.as_ref(),
            variable: cluster.monitor_password_env.as_deref(),
            file: cluster.monitor_password_file.as_deref(),
        };
        let password = self.password(at, &source)?;
        let role = cluster.monitor_role.as_deref();
        if role.is_none() && password.is_none() {
            if cluster.monitor_database.is_some() {
                let at = at.key("monitor_database");
                return self.problem(at, Fault::Needs("monitor_role"));
            }
            return Ok(None);
        }
        let missing = Fault::Missing("the monitor's password needs its role");
        let role = self.sql_name(at.key("monitor_role"), role, missing);
        let database = cluster.monitor_database.as_deref();
        let database = self.sql_name(
            at.key("monitor_database"),
            database.or(Some(MONITOR_DATABASE)),
            Fault::Missing("give the database to log in to"),
        );
        Ok(Some(Watch {
            login: Login {
                role: role?,
                password,
            },
            database: database?,
        }))
    }

    /// Where the file doesn't say as whom a cluster with replicas is watched: as its first tenant that
    /// has a login of its own.
    pub(super) fn watch_as_tenants(
        &mut self,
        clusters: &mut [Arc<Cluster>],
        tenants: &[Arc<Tenant>],
    ) {
        let top = At::top("clusters");
        for (index, cluster) in clusters.iter_mut().enumerate() {
            if cluster.watch.is_some() || cluster.replicas.is_empty() {
                continue;
            }
            let its = |tenant: &&Arc<Tenant>| {
                tenant.placement.cluster == cluster.name && tenant.placement.slots.is_none()
            };
            if let Some(tenant) = tenants.iter().find(its) {
                let place = &tenant.placement;
                Arc::make_mut(cluster).watch = Some(Watch {
                    login: place.login.clone(),
                    database: place.database.clone(),
                });
            } else {
                let at = top.entry(index, Some(cluster.name.as_str()));
                let warning = Problem::new(at.key("replicas"), Fault::NotWatched);
                self.warnings.push(warning);
            }
        }
    }

    /// How a tenant's reads are spread; `cluster` is its own, where there is one.
    pub(super) fn reads(
        &mut self,
        at: At<'_>,
        cluster: Option<&Cluster>,
        tenant: &raw::Tenant,
        tuning: &raw::Tuning,
    ) -> Checked<Reads> {
        let default = Reads::default();
        let replicas = match (&tenant.read_replicas, cluster) {
            (Some(texts), Some(cluster)) => Some(self.read_replicas(at, cluster, texts)?),
            _ => None,
        };
        Ok(Reads {
            split: tuning.read_splitting.unwrap_or(default.split),
            consistency: tuning.consistency.map_or(default.consistency, Into::into),
            replicas,
            failover_hold: tuning
                .failover_hold
                .map_or(default.failover_hold, |Period(time)| time),
        })
    }

    /// Some of the cluster's replicas. Weight and region are the cluster's to say.
    fn read_replicas(
        &mut self,
        at: At<'_>,
        cluster: &Cluster,
        texts: &[String],
    ) -> Checked<Vec<Address>> {
        let at = at.key("read_replicas");
        if texts.is_empty() {
            let way = "name some of the cluster's replicas; read_splitting = false keeps all reads on the primary";
            return self.problem(at, Fault::Missing(way));
        }
        let mut found = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let at = at.index(index);
            match url::parse_replica(text) {
                Ok(Replica { address, .. }) if found.contains(&address) => {
                    let value = address.to_string();
                    self.note(at, Fault::Duplicate { value });
                }
                Ok(Replica { address, .. }) => {
                    if !cluster.replicas.iter().any(|one| one.address == address) {
                        let known = cluster.replicas.iter();
                        let fault = Fault::UnknownReplica {
                            value: text.clone(),
                            cluster: cluster.name.to_string(),
                            known: known.map(|one| url::print(&one.address)).collect(),
                        };
                        self.note(at, fault);
                    }
                    found.push(address);
                }
                Err(error) => self.note(at, Fault::ReplicaUrl(error)),
            }
        }
        Ok(found)
    }
}

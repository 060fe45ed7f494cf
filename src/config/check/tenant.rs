//! `[defaults]` and `[[tenants]]`.

use super::{Check, Checked, Noted, caps::GivenCaps};
use crate::{
    config::{error::Fault, location::At, raw},
    sql::quoted_name,
    tenant::{
        Cluster, ClusterName, Limits, Login, Pinning, Placement, Plan, Plans, PoolMode, Status,
        Tenant, TenantId, Tier, Timeouts,
    },
};
use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU64,
    sync::Arc,
};

/// So many clusters are named in an error.
const KNOWN_MAX: usize = 5;
/// StartupMessage parameters that are no settings; `replication` would even make a walsender.
const NO_SETTINGS: [&str; 4] = ["user", "database", "replication", "options"];

impl Check<'_> {
    pub(super) fn tenants(
        &mut self,
        clusters: &HashMap<&str, &Cluster>,
        (plans, defaults): (&[Plan], &raw::Tuning),
        tenants: Vec<raw::Tenant>,
    ) -> Vec<Arc<Tenant>> {
        self.tuning(At::top("defaults"), defaults);
        let mut known = Plans::default();
        known.put(plans.iter().cloned());
        let mut seen = HashSet::with_capacity(tenants.len());
        let mut checked = Vec::with_capacity(tenants.len());
        let mut promised = HashMap::new();
        let top = At::top("tenants");
        for (index, mut tenant) in tenants.into_iter().enumerate() {
            let tuning = tenant.take_tuning();
            let at = top.entry(index, tenant.id.as_deref());
            if let Some(id) = &tenant.id {
                self.unique(at.key("id"), &mut seen, id);
            }
            self.tuning(at, &tuning);
            let plan = self.plan_of(at, &known, tenant.plan.as_deref());
            let planned = plan.map(raw::Tuning::of_plan).unwrap_or_default();
            let tuning = tuning.or(&planned).or(defaults);
            let tenant = self.tenant(at, clusters, (&tenant, plan), &tuning);
            if let Ok(tenant) = &tenant {
                self.guarantee(at, clusters, &mut promised, tenant);
            }
            checked.extend(tenant.map(Arc::new));
        }
        checked
    }

    /// All that is promised to tenants of a cluster must be there.
    fn guarantee(
        &mut self,
        at: At<'_>,
        clusters: &HashMap<&str, &Cluster>,
        promised: &mut HashMap<ClusterName, u64>,
        tenant: &Tenant,
    ) {
        let name = &tenant.placement.cluster;
        let value = u64::from(tenant.limits.guaranteed_servers);
        let Some(cluster) = clusters.get(name.as_str()).filter(|_| value > 0) else {
            return;
        };
        let others = promised.entry(name.clone()).or_default();
        let limit = u64::from(cluster.tenants_servers());
        if *others + value > limit {
            let fault = Fault::Promised {
                value,
                others: *others,
                limit,
            };
            self.note(at.key("guaranteed_servers"), fault);
        }
        *others += value;
    }

    fn tenant(
        &mut self,
        at: At<'_>,
        clusters: &HashMap<&str, &Cluster>,
        (tenant, plan): (&raw::Tenant, Option<&Plan>),
        tuning: &raw::Tuning,
    ) -> Checked<Tenant> {
        let id = self.tenant_id(at.key("id"), tenant.id.as_deref());
        let placement = self.placement(at, clusters, tenant);
        let has_read_only_login = tenant.read_only_role.is_some();
        let keys = self.keys(at, &tenant.keys, has_read_only_login);
        let limits = Limits {
            // It is told; who is in the file is measured by nobody.
            max_storage_bytes: plan.and_then(|plan| NonZeroU64::new(plan.storage_bytes?)),
            ..limits(tuning)
        };
        if limits.min_pool_size > limits.pool_size {
            let fault = Fault::Above {
                value: limits.min_pool_size.into(),
                other: "pool_size",
                limit: limits.pool_size.into(),
            };
            self.note(at.key("min_pool_size"), fault);
        }
        let terms = self.terms(at, (tenant, plan), tuning);
        let timeouts = timeouts(tuning);
        let cluster = tenant.cluster.as_deref();
        let cluster = cluster.and_then(|name| clusters.get(name).copied());
        let reads = self.reads(at, cluster, tenant, tuning);
        let (id, placement) = (id?, placement?);
        let settings = self.settings(at, &id, &placement, tuning);
        Ok(Tenant {
            // Of the registry's tenants alone: who is in the file has no admin who could measure it.
            storage_used: None,
            id,
            status: tenant.status.map_or(Status::Active, Status::from),
            placement,
            pool_mode: tuning
                .pool_mode
                .map_or(PoolMode::Transaction, PoolMode::from),
            pinning: tuning.pin.map_or(Pinning::Allow, Pinning::from),
            limits,
            terms: terms?,
            timeouts,
            reads: reads?,
            settings,
            forced: forced(tuning.forced.as_deref()),
            keys,
        })
    }

    fn tenant_id(&mut self, at: At<'_>, id: Option<&str>) -> Checked<TenantId> {
        let Some(id) = id else {
            return self.problem(
                at,
                Fault::Missing("give the user name of the tenant's clients"),
            );
        };
        match TenantId::new(id) {
            Ok(id) => Ok(id),
            Err(source) => {
                let value = id.to_owned();
                self.problem(at, Fault::Id { value, source })
            }
        }
    }

    fn placement(
        &mut self,
        at: At<'_>,
        clusters: &HashMap<&str, &Cluster>,
        tenant: &raw::Tenant,
    ) -> Checked<Placement> {
        let cluster = self.cluster_of(at.key("cluster"), clusters, tenant.cluster.as_deref());
        let tier = match tenant.tier {
            Some(tier) => Ok(Tier::from(tier)),
            None => self.problem(
                at.key("tier"),
                Fault::Missing("use \"database\", \"schema\" or \"row\""),
            ),
        };
        let missing = Fault::Missing("give the upstream database");
        let database = self.sql_name(at.key("database"), tenant.database.as_deref(), missing);
        let login = self.login(at, tenant);
        let read_only_login = self.read_only_login(at, tenant);
        let schema = self.schema(
            at.key("schema"),
            tier.as_ref().ok().copied(),
            tenant.schema.as_deref(),
            login.as_ref().ok(),
        );
        Ok(Placement {
            cluster: cluster?,
            tier: tier?,
            database: database?,
            schema: schema?,
            login: login?,
            read_only_login: read_only_login?,
            slots: None,
        })
    }

    fn cluster_of(
        &mut self,
        at: At<'_>,
        clusters: &HashMap<&str, &Cluster>,
        name: Option<&str>,
    ) -> Checked<ClusterName> {
        let Some(name) = name else {
            return self.problem(at, Fault::Missing("name one of [[clusters]]"));
        };
        if let Some(cluster) = clusters.get(name) {
            return Ok(cluster.name.clone());
        }
        let mut known: Vec<_> = clusters.keys().map(ToString::to_string).collect();
        known.sort_unstable();
        known.truncate(KNOWN_MAX);
        let value = name.to_owned();
        self.problem(at, Fault::UnknownCluster { value, known })
    }

    fn schema(
        &mut self,
        at: At<'_>,
        tier: Option<Tier>,
        given: Option<&str>,
        login: Option<&Login>,
    ) -> Checked<Option<Box<str>>> {
        match (tier.ok_or(Noted)?, given) {
            (Tier::Schema, None) => Ok(Some(login.ok_or(Noted)?.role.clone())),
            (Tier::Schema, Some(_)) => {
                let missing = Fault::Missing("give the schema");
                Ok(Some(self.sql_name(at, given, missing)?))
            }
            (Tier::Database | Tier::Row, None) => Ok(None),
            (Tier::Database | Tier::Row, Some(_)) => {
                self.problem(at, Fault::Needs("tier = \"schema\""))
            }
        }
    }

    /// Checks the bounds of what is given here.
    fn tuning(&mut self, at: At<'_>, tuning: &raw::Tuning) {
        for (key, value, bounds) in [
            ("pool_size", tuning.pool_size, 1..=10_000),
            ("min_pool_size", tuning.min_pool_size, 0..=10_000),
            ("guaranteed_servers", tuning.guaranteed_servers, 0..=10_000),
            ("weight", tuning.weight, 1..=Limits::WEIGHT_MAX),
            (
                "max_client_connections",
                tuning.max_client_connections,
                1..=1_000_000,
            ),
            (
                "max_prepared_statements",
                tuning.max_prepared_statements,
                1..=100_000,
            ),
            ("max_pinned_servers", tuning.max_pinned_servers, 1..=10_000),
            ("max_waiting", tuning.max_waiting, 0..=1_000_000),
        ] {
            self.number(at.key(key), value, 0, bounds).ok();
        }
        for (key, value) in [
            ("queries_per_month", tuning.queries_per_month),
            ("transactions_per_month", tuning.transactions_per_month),
        ] {
            let max = Plan::QUOTA_MAX;
            if let Some(value) = value.filter(|value| *value > max) {
                self.note(at.key(key), Fault::Range { value, min: 0, max });
            }
        }
        self.caps(at, &tuning.into());
        if let Some(name) = &tuning.tenant_setting
            && !name.contains('.')
        {
            let reason = "a setting of your own has a dot, such as \"app.tenant_id\"";
            let value = name.clone();
            self.note(at.key("tenant_setting"), Fault::Setting { value, reason });
        }
    }

    /// What PostgreSQL is given at the start of a session, in order, each name once.
    fn settings(
        &mut self,
        at: At<'_>,
        id: &TenantId,
        placement: &Placement,
        tuning: &raw::Tuning,
    ) -> Vec<(Box<str>, Box<str>)> {
        let search_path = placement.schema.as_deref().map(quoted_name);
        let own = [
            ("schema", Some("search_path"), search_path.as_deref()),
            ("time_zone", Some("TimeZone"), tuning.time_zone.as_deref()),
            (
                "tenant_setting",
                tuning.tenant_setting.as_deref(),
                Some(id.as_str()),
            ),
        ];
        let own = own
            .into_iter()
            .filter_map(|(key, name, value)| Some((key, name?, value?)));
        let given = tuning.settings.iter().flatten();
        let given = given.map(|(name, value)| ("settings", name.as_str(), value.as_str()));
        let mut settings: Vec<(Box<str>, Box<str>)> = Vec::new();
        for (key, name, value) in own.chain(given) {
            let at = at.key(key);
            let at = if key == "settings" { at.key(name) } else { at };
            let is_taken = settings
                .iter()
                .any(|(other, _)| other.eq_ignore_ascii_case(name));
            if let Some(reason) = setting_fault(name, is_taken) {
                let value = name.to_owned();
                self.note(at, Fault::Setting { value, reason });
            } else if value.contains('\0') {
                self.note(at, Fault::Nul);
            } else {
                settings.push((name.into(), value.into()));
            }
        }
        settings
    }
}

fn setting_fault(name: &str, is_taken: bool) -> Option<&'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    let lower = name.to_ascii_lowercase();
    if is_taken {
        Some("another key sets it already")
    } else if name.is_empty() || !name.chars().all(allowed) {
        Some("a setting has letters, digits, \"_\" and \".\"")
    } else if NO_SETTINGS.contains(&&*lower) || lower.starts_with("_pq_.") {
        Some("that is a parameter of the protocol")
    } else {
        None
    }
}

fn forced(names: Option<&[String]>) -> Vec<Box<str>> {
    let names = names.unwrap_or_default().iter();
    names.map(|name| name.to_lowercase().into()).collect()
}

/// The numbers were checked where they were given; one out of bounds is a problem already.
fn limits(tuning: &raw::Tuning) -> Limits {
    let default = Limits::default();
    let number = |value: Option<u64>, default| {
        value.map_or(default, |value| u32::try_from(value).unwrap_or(u32::MAX))
    };
    let pool_size = number(tuning.pool_size, default.pool_size);
    Limits {
        max_client_connections: number(
            tuning.max_client_connections,
            default.max_client_connections,
        ),
        pool_size,
        min_pool_size: number(tuning.min_pool_size, default.min_pool_size),
        guaranteed_servers: number(tuning.guaranteed_servers, default.guaranteed_servers),
        weight: number(tuning.weight, default.weight),
        max_prepared_statements: number(
            tuning.max_prepared_statements,
            default.max_prepared_statements,
        ),
        max_pinned_servers: number(tuning.max_pinned_servers, Limits::pinned_of(pool_size)),
        max_waiting: number(tuning.max_waiting, default.max_waiting),
        max_storage_bytes: default.max_storage_bytes,
        caps: GivenCaps::from(tuning).caps(),
    }
}

fn timeouts(tuning: &raw::Tuning) -> Timeouts {
    let default = Timeouts::default();
    macro_rules! limit {
        ($key:ident, $field:ident) => {
            tuning.$key.map_or(default.$field, |time| time.limit())
        };
    }
    Timeouts {
        server_idle: limit!(server_idle_timeout, server_idle),
        server_lifetime: limit!(server_lifetime, server_lifetime),
        server_check_delay: limit!(server_check_delay, server_check_delay),
        query_wait: limit!(query_wait_timeout, query_wait),
        query: limit!(query_timeout, query),
        transaction: limit!(transaction_timeout, transaction),
        idle_transaction: limit!(idle_transaction_timeout, idle_transaction),
        client_idle: limit!(client_idle_timeout, client_idle),
        client_write: limit!(client_write_timeout, client_write),
    }
}

//! What stands between the clients and PostgreSQL.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::credential::{Certificate, Credential};
use crate::process::Process;
use crate::stage::Stage;
use crate::wire::Login;
use crate::{pgbouncer, pgusher};

/// Servers per tenant, in every proxy, unless the case wants another number.
pub(crate) const POOL_SIZE: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// The measure of all things here
    Pgbouncer,
    /// The subject
    Pgusher,
    /// The subject without a limit of running statements
    Unlimited,
    /// No proxy: what PostgreSQL and the load itself take
    Direct,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pgbouncer => "PgBouncer",
            Self::Pgusher => "pgusher",
            Self::Unlimited => "no limit",
            Self::Direct => "direct",
        }
    }
}

/// A tenant as the configuration has it: user and database of this name, one verifier.
#[derive(Clone, Debug)]
pub(crate) struct Tenant {
    pub(crate) id: String,
    pub(crate) verifier: String,
    /// More lines for pgusher.
    pub(crate) lines: String,
}

/// What a case wants of a proxy.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The first is the one that works; its key is the credential.
    pub(crate) tenants: Vec<Tenant>,
    pub(crate) credential: Credential,
    /// Offers TLS, and the clients use it.
    pub(crate) certificate: Option<Certificate>,
    /// Servers per tenant.
    pub(crate) pool_size: usize,
    /// The same in PgBouncer, which has no limit of all tenants' servers; `None`: the same.
    pub(crate) pgbouncer_pool_size: Option<usize>,
    /// Servers of all tenants in pgusher.
    pub(crate) server_budget: usize,
    /// More lines for pgusher's cluster.
    pub(crate) cluster_lines: String,
    /// Prepared statements per server in PgBouncer; pgusher keeps its default.
    pub(crate) pgbouncer_statements: usize,
}

impl Setup {
    /// One tenant, no TLS.
    pub(crate) fn plain() -> Self {
        Self::with_tenants(&["bench"])
    }

    /// Tenants that share one key.
    pub(crate) fn with_tenants(ids: &[&str]) -> Self {
        let credential = Credential::new("pgu_bench_4DtQ8w2Zk7VnXrGmYpLs");
        let tenant = |id: &&str| Tenant {
            id: (*id).to_owned(),
            verifier: credential.verifier(),
            lines: String::new(),
        };
        Self {
            tenants: ids.iter().map(tenant).collect(),
            credential,
            certificate: None,
            pool_size: POOL_SIZE,
            pgbouncer_pool_size: None,
            server_budget: 150,
            cluster_lines: String::new(),
            pgbouncer_statements: 200,
        }
    }

    /// No limit of running statements, whatever the cluster's lines say of it.
    pub(crate) fn unlimited(mut self) -> Self {
        let lines = self.cluster_lines.lines();
        let others = lines.filter(|line| !line.contains("running_statements"));
        let lines: Vec<_> = others.chain(["max_running_statements = 0\n"]).collect();
        self.cluster_lines = lines.join("\n");
        self
    }

    /// Adds lines for pgusher's configuration of a tenant.
    pub(crate) fn tell(mut self, tenant: &str, lines: &str) -> Self {
        let mut tenants = self.tenants.iter_mut();
        if let Some(tenant) = tenants.find(|known| known.id == tenant) {
            tenant.lines.push_str(lines);
        }
        self
    }

    /// The tenant that works.
    pub(crate) fn worker(&self) -> &str {
        self.tenants.first().map_or("bench", |tenant| &tenant.id)
    }
}

/// A proxy that runs; ended when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) kind: Kind,
    address: SocketAddr,
    process: Option<Process>,
    credential: Credential,
    tls: bool,
}

impl Proxy {
    /// Starts one; it may not listen yet.
    pub(crate) fn launch(kind: Kind, setup: &Setup, stage: &Stage) -> Result<Self> {
        let process = match kind {
            Kind::Direct => None,
            Kind::Pgbouncer => Some(pgbouncer::launch(setup, stage)?),
            Kind::Pgusher => Some(pgusher::launch(setup, stage)?),
            Kind::Unlimited => Some(pgusher::launch(&setup.clone().unlimited(), stage)?),
        };
        let (port, process) = process.unzip();
        let port = port.unwrap_or_else(|| stage.postgres.port());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let tls = setup.certificate.is_some() && process.is_some();
        Ok(Self {
            kind,
            address,
            process,
            credential: setup.credential.clone(),
            tls,
        })
    }

    /// The process to measure; an error when there is none.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.process
            .as_ref()
            .map(Process::pid)
            .context("there is no proxy process")
    }

    /// An error, with the end of its log, when it has died.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::check_alive)
    }

    /// How this tenant logs in.
    pub(crate) fn login(&self, tenant: &str) -> Login {
        let name = if self.kind == Kind::Direct {
            "bench"
        } else {
            tenant
        };
        Login {
            address: self.address,
            user: name.to_owned(),
            database: name.to_owned(),
            credential: self.credential.clone(),
            tls: self.tls,
        }
    }
}

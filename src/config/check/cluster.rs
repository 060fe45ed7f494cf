//! `[[clusters]]`.

use super::{Check, Checked};
use crate::{
    config::{error::Fault, location::At, raw, url},
    tenant::{Address, Cluster, ClusterName, UpstreamTls},
};
use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Check<'_> {
    /// As a proxy in this region uses them.
    pub(super) fn clusters(
        &mut self,
        clusters: &[raw::Cluster],
        region: Option<&str>,
    ) -> Vec<Arc<Cluster>> {
        let mut seen = HashSet::new();
        let mut checked = Vec::with_capacity(clusters.len());
        let top = At::top("clusters");
        for (index, cluster) in clusters.iter().enumerate() {
            let at = top.entry(index, cluster.name.as_deref());
            if let Some(name) = &cluster.name {
                self.unique(at.key("name"), &mut seen, name);
            }
            checked.extend(self.cluster(at, cluster, region).map(Arc::new));
        }
        checked
    }

    fn cluster(
        &mut self,
        at: At<'_>,
        cluster: &raw::Cluster,
        region: Option<&str>,
    ) -> Checked<Cluster> {
        let name = self.cluster_name(at.key("name"), cluster.name.as_deref());
        let primary = match &cluster.primary {
            Some(text) => self.url(at.key("primary"), text),
            None => self.problem(
                at.key("primary"),
                Fault::Missing("give the URL of the primary"),
            ),
        };
        let replicas = self.replicas(at, primary.as_ref().ok(), &cluster.replicas);
        let standbys = self.standbys(at, cluster, region.map(Into::into));
        let watch = self.watch(at, cluster);
        let connections = at.key("max_server_connections");
        let connections = self.number(connections, cluster.max_server_connections, 90, 1..=100_000);
        let reserved = at.key("reserved_servers");
        let reserved = self.number(reserved, cluster.reserved_servers, 0, 0..=100_000);
        if let (Ok(connections), Ok(reserved)) = (&connections, &reserved)
            && reserved >= connections
        {
            let fault = Fault::Reserves {
                value: (*reserved).into(),
                limit: (*connections).into(),
            };
            self.note(at.key("reserved_servers"), fault);
        }
        let connects = at.key("max_parallel_connects");
        let connects = self.number(connects, cluster.max_parallel_connects, 8, 1..=10_000);
        let running = at.key("max_running_statements");
        let running = self.number(running, cluster.max_running_statements, 0, 0..=100_000);
        let at_least = at.key("min_running_statements");
        let at_most = running.as_ref().map_or(100_000, |max| *max);
        let at_most = if at_most == 0 { 100_000 } else { at_most };
        let default = Cluster::MIN_RUNNING_STATEMENTS.min(at_most);
        let at_least = self.number(
            at_least,
            cluster.min_running_statements,
            default,
            1..=at_most,
        );
        let timeout = at.key("connect_timeout");
        let timeout = self.period(timeout, cluster.connect_timeout, CONNECT_TIMEOUT);
        let (tls, client_certificate) = self.upstream_tls(at, cluster)?;
        Ok(Cluster {
            name: name?,
            primary: primary?,
            replicas,
            standbys: standbys?,
            is_paused: cluster.paused.unwrap_or(false),
            watch: watch?,
            max_server_connections: connections?,
            reserved_servers: reserved?,
            max_parallel_connects: connects?,
            max_running_statements: running?,
            adaptive_running_statements: cluster
                .adaptive_running_statements
                .unwrap_or(cluster.max_running_statements.is_none()),
            min_running_statements: at_least?,
            connect_timeout: timeout?,
            tls,
            client_certificate,
        })
    }

    fn cluster_name(&mut self, at: At<'_>, name: Option<&str>) -> Checked<ClusterName> {
        let Some(name) = name else {
            return self.problem(at, Fault::Missing("give the cluster a name"));
        };
        match ClusterName::new(name) {
            Ok(name) => Ok(name),
            Err(source) => {
                let value = name.to_owned();
                self.problem(at, Fault::Id { value, source })
            }
        }
    }

    fn url(&mut self, at: At<'_>, text: &str) -> Checked<Address> {
        match url::parse(text) {
            Ok(address) => Ok(address),
            Err(error) => self.problem(at, Fault::Url(error)),
        }
    }

    /// TLS towards a cluster; a key that would have no effect is an error.
    fn upstream_tls(
        &mut self,
        at: At<'_>,
        cluster: &raw::Cluster,
    ) -> Checked<(UpstreamTls, Option<(PathBuf, PathBuf)>)> {
        let (cert, key) = (cluster.tls_cert.as_deref(), cluster.tls_key.as_deref());
        let certificate = self.certificate(at, cert, key);
        let ca = match &cluster.tls_ca {
            Some(path) => Some(self.readable(at.key("tls_ca"), path)?),
            None => None,
        };
        let tls = match cluster.tls.unwrap_or_default() {
            raw::UpstreamTls::VerifyCa => UpstreamTls::VerifyCa(ca),
            raw::UpstreamTls::VerifyFull => UpstreamTls::VerifyFull(ca),
            raw::UpstreamTls::Disable | raw::UpstreamTls::Require if ca.is_some() => {
                let needs = Fault::Needs("tls = \"verify-ca\" or \"verify-full\"");
                return self.problem(at.key("tls_ca"), needs);
            }
            raw::UpstreamTls::Disable if cert.is_some() => {
                return self.problem(
                    at.key("tls_cert"),
                    Fault::Needs("tls = \"require\" or better"),
                );
            }
            raw::UpstreamTls::Disable => UpstreamTls::Disable,
            raw::UpstreamTls::Require => UpstreamTls::Require,
        };
        Ok((tls, certificate?))
    }
}

//! `pgusher cluster`.

use super::{ConfigFile, Io, UsageError, control, table, tenant, tuning};
use crate::{
    config::{Config, print_cluster_url, print_replica_url},
    control::{ClusterView, NewCluster, StandbysChange},
    tenant::{Secret, UpstreamTls},
};
use clap::{ArgGroup, Args, Subcommand};
use std::{path::PathBuf, time::Duration};
use time::OffsetDateTime;
use zeroize::Zeroizing;

const ADD_HELP: &str = "\
Examples:
  PW=… pgusher cluster add main --primary postgres://10.0.0.5:5432 --admin-role postgres --admin-password-env PW
  pgusher cluster add main --admin-role pgusher --admin-password-file admin.pw      address as in proxy.toml
  printf %s \"$PW\" | pgusher cluster add eu --primary postgres://eu-db --admin-password-stdin \\
      --replica postgres://eu-db-2 --tls verify-full --tls-ca ca.crt

The admin role makes databases, roles and schemas: a superuser, or a role with CREATEROLE and CREATEDB
as on managed PostgreSQL. What it can't close there is listed, and shown again by verify. The cluster
is hardened: tenants see nothing of each other.";

const SET_HELP: &str = "\
Examples:
  pgusher cluster set main --replica-lag-max 5s --replica-lag-bytes-max 16777216
  pgusher cluster set main --primary-weight 1 --replica-fallback false
  pgusher cluster set main --replica-lag-max default      back to the default
  pgusher cluster set main --profile compatible

How replicas are used running proxies learn at once.";

const PAUSE_HELP: &str = "\
Example, a planned change of the primary without an error:
  pgusher cluster pause main                              sessions wait; returns when nothing is open
  pg_ctl stop -m fast …                                   the old primary
  pg_ctl promote …                                        one of the cluster's replicas
  pgusher cluster resume main

Transactions under way end as they would; new ones wait, each at most its tenant's failover_hold (then
57P03). Reads on replicas go on. All proxies learn it at once. Nobody has to resume: it goes on by itself
when the time is over. When transactions are still open then, it exits with 1.";

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Add a cluster: try its admin, harden it, seal the password
    #[command(after_help = ADD_HELP)]
    Add(Box<AddArgs>),
    /// List clusters
    List(ListArgs),
    /// Show a cluster
    Show(OneArgs),
    /// Harden a cluster again, after an upgrade of PostgreSQL for example
    Harden(OneArgs),
    /// Attack a cluster as a tenant would, and report what held
    Verify(OneArgs),
    /// Change how a cluster's replicas are used, or how it is hardened, with all databases that tenants
    /// have or share there
    #[command(after_help = SET_HELP)]
    Set(Box<SetArgs>),
    /// Let no transaction begin on the primary for a while, and wait until none is open
    #[command(after_help = PAUSE_HELP)]
    Pause(PauseArgs),
    /// Let transactions begin again on the primary
    Resume(OneArgs),
    /// Add a hot standby, or change its weight and region
    AddReplica(ReplicaArgs),
    /// Forget a hot standby, also one that does not answer
    RemoveReplica(ReplicaArgs),
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("secret").args(["admin_password_env", "admin_password_file", "admin_password_stdin"])))]
pub(super) struct AddArgs {
    /// 1 to 63 of a-z, 0-9, _ and -
    name: String,
    /// Its address; where it is not given, that of the cluster of this name in proxy.toml
    #[arg(long, value_name = "postgres://HOST[:PORT]")]
    primary: Option<String>,
    /// A hot standby, as of `pgusher cluster add-replica`; can be given more than once
    #[arg(long, value_name = "URL")]
    replica: Vec<String>,
    /// For people
    #[arg(long)]
    region: Option<String>,
    /// Who makes and removes tenants there
    #[arg(long, default_value = "postgres", value_name = "ROLE")]
    admin_role: String,
    /// The environment variable with its password
    #[arg(long, value_name = "NAME")]
    admin_password_env: Option<String>,
    /// The file with its password
    #[arg(long, value_name = "FILE")]
    admin_password_file: Option<PathBuf>,
    /// Its password is the first line of stdin
    #[arg(long)]
    admin_password_stdin: bool,
    /// disable, require, verify-ca or verify-full
    #[arg(long)]
    tls: Option<String>,
    /// The CA's certificate
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// strict; compatible: dumps by a tenant work, which shows it more of the catalogue; or
    /// sealed: tenants see names only, and reflection (ORMs, psql's \d) fails
    #[arg(long)]
    profile: Option<String>,
    /// Server connections of all tenants together
    #[arg(long, value_name = "N")]
    max_server_connections: Option<i32>,
    /// The database that tenants of the tier schema share
    #[arg(long, value_name = "NAME")]
    schema_database: Option<String>,
    /// The database that tenants of the tier row share
    #[arg(long, value_name = "NAME")]
    row_database: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct OneArgs {
    /// The cluster
    name: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args([
    "profile", "primary_weight", "replica_lag_max", "replica_lag_bytes_max", "replica_fallback",
    "replica_slow_start", "watch_interval", "watch_timeout", "max_running_statements",
    "adaptive_running_statements", "min_running_statements",
])))]
pub(super) struct SetArgs {
    /// The cluster
    name: String,
    /// strict, compatible or sealed: as of `pgusher cluster add`
    #[arg(long)]
    profile: Option<String>,
    #[command(flatten)]
    standbys: StandbysArgs,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    /// The cluster
    name: String,
    /// It goes on by itself after this: 2s to 10m
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    time: Duration,
    #[command(flatten)]
    common: Common,
}

/// Each as of proxy.toml; "default" goes back to the default.
#[derive(Debug, Args)]
struct StandbysArgs {
    /// The primary's share of the reads, against the replicas' weights: 0 to 1000
    #[arg(long, value_name = "N")]
    primary_weight: Option<String>,
    /// A replica that is further behind gets no reads; 0: no limit
    #[arg(long, value_name = "TIME")]
    replica_lag_max: Option<String>,
    /// Likewise in bytes of WAL; 0: no limit
    #[arg(long, value_name = "BYTES")]
    replica_lag_bytes_max: Option<String>,
    /// true: reads that no replica can take go to the primary; false: they fail
    #[arg(long, value_name = "BOOL")]
    replica_fallback: Option<String>,
    /// A replica that comes has its full share after so long; 0: at once
    #[arg(long, value_name = "TIME")]
    replica_slow_start: Option<String>,
    /// How often each server is looked at: 10ms to 1m
    #[arg(long, value_name = "TIME")]
    watch_interval: Option<String>,
    /// How long it may take to answer: 10ms to 1m
    #[arg(long, value_name = "TIME")]
    watch_timeout: Option<String>,
    /// Statements that run at the same time on each server; 0: no limit; default: it is found
    #[arg(long, value_name = "N")]
    max_running_statements: Option<String>,
    /// true: it is found even so, up to that
    #[arg(long, value_name = "BOOL")]
    adaptive_running_statements: Option<String>,
    /// And at least so many: 1 to 100000
    #[arg(long, value_name = "N")]
    min_running_statements: Option<String>,
}

impl StandbysArgs {
    /// What is given, by the names of proxy.toml.
    fn given(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("primary_weight", &self.primary_weight),
            ("replica_lag_max", &self.replica_lag_max),
            ("replica_lag_bytes_max", &self.replica_lag_bytes_max),
            ("replica_fallback", &self.replica_fallback),
            ("replica_slow_start", &self.replica_slow_start),
            ("watch_interval", &self.watch_interval),
            ("watch_timeout", &self.watch_timeout),
            ("max_running_statements", &self.max_running_statements),
            (
                "adaptive_running_statements",
                &self.adaptive_running_statements,
            ),
            ("min_running_statements", &self.min_running_statements),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)))
            .collect()
    }
}

#[derive(Debug, Args)]
pub(super) struct ReplicaArgs {
    /// The cluster
    name: String,
    /// Its address; to be added with its share of the reads and where it stands, if not 1 and nowhere
    #[arg(value_name = "postgres://HOST[:PORT][?weight=N&region=NAME]")]
    url: String,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(command: ClusterCommand, io: &mut Io<'_>) -> anyhow::Result<()> {
    match command {
        ClusterCommand::Add(args) => add(*args, io),
        ClusterCommand::List(args) => list(&args.common, io),
        ClusterCommand::Show(OneArgs { name, common }) => {
            let cluster = control::run(&common.config, |control, actor| async move {
                Ok(control.cluster(&actor, &name).await?)
            });
            shown(&cluster?, common.json, io)
        }
        ClusterCommand::Harden(OneArgs { name, common }) => {
            let spinner = tenant::spinner("hardening it");
            let cluster = control::run(&common.config, |control, actor| async move {
                Ok(control.harden_cluster(&actor, &name).await?)
            });
            spinner.finish_and_clear();
            done(&cluster?, "is hardened", common.json, io)
        }
        ClusterCommand::Verify(OneArgs { name, common }) => {
            let spinner = tenant::spinner("attacking it");
            let report = control::run(&common.config, |control, actor| async move {
                Ok(control.verify_cluster(&actor, &name).await?)
            });
            spinner.finish_and_clear();
            tenant::reported(&report?, common.json, io)
        }
        ClusterCommand::Set(args) => set(*args, io),
        ClusterCommand::Pause(args) => pause(args, io),
        ClusterCommand::Resume(OneArgs { name, common }) => {
            let cluster = control::run(&common.config, |control, actor| async move {
                Ok(control.resume_cluster(&actor, &name).await?)
            })?;
            if common.json {
                return table::json(io, &cluster);
            }
            writeln!(io.output, "cluster {} is not paused", cluster.name)?;
            Ok(())
        }
        ClusterCommand::RemoveReplica(ReplicaArgs { name, url, common }) => {
            let cluster = control::run(&common.config, |control, actor| async move {
                Ok(control.remove_replica(&actor, &name, &url).await?)
            });
            done(&cluster?, "has one replica less", common.json, io)
        }
        ClusterCommand::AddReplica(ReplicaArgs { name, url, common }) => {
            let added = url.clone();
            let cluster = control::run(&common.config, |control, actor| async move {
                Ok(control.add_replica(&actor, &name, &url).await?)
            });
            done(
                &cluster?,
                &format!("has the replica {added}"),
                common.json,
                io,
            )
        }
    }
}

fn add(args: AddArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let mut new = NewCluster {
        admin_password: password(&args, io)?,
        name: args.name,
        replica_urls: args.replica,
        region: args.region,
        admin_role: args.admin_role,
        tls: args.tls,
        tls_ca: args.tls_ca.map(|path| absolute(&path)).transpose()?,
        profile: args.profile,
        max_server_connections: args.max_server_connections,
        schema_database: args.schema_database,
        row_database: args.row_database,
        ..NewCluster::default()
    };
    match args.primary {
        Some(url) => new.primary_url = url,
        None => take_address(&mut new, &args.common.config)?,
    }
    let spinner = tenant::spinner("hardening it");
    let cluster = control::run(&args.common.config, |control, actor| async move {
        Ok(control.add_cluster(&actor, new).await?)
    });
    spinner.finish_and_clear();
    done(&cluster?, "is added", args.common.json, io)
}

fn set(args: SetArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let SetArgs {
        name,
        profile,
        standbys,
        common,
    } = args;
    let change = tuning::standbys(&standbys.given())?;
    if change != StandbysChange::default() {
        let name = name.clone();
        let cluster = control::run(&common.config, |control, actor| async move {
            Ok(control.set_standbys(&actor, &name, change).await?)
        })?;
        if profile.is_none() {
            return done(&cluster, "is changed", common.json, io);
        }
    }
    let Some(profile) = profile else {
        return Ok(());
    };
    let spinner = tenant::spinner("hardening it");
    let cluster = control::run(&common.config, |control, actor| async move {
        Ok(control.set_profile(&actor, &name, &profile).await?)
    });
    spinner.finish_and_clear();
    let cluster = cluster?;
    let what = format!("is hardened by the profile {}", cluster.profile);
    done(&cluster, &what, common.json, io)
}

fn pause(args: PauseArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let PauseArgs { name, time, common } = args;
    let spinner = tenant::spinner("pausing it");
    let line = spinner.clone();
    let paused = control::run(&common.config, |control, actor| async move {
        let progress = |open| line.set_message(format!("waiting for {open} open transactions"));
        let paused = control.pause_cluster(&actor, &name, time, progress);
        Ok(paused.await?)
    });
    spinner.finish_and_clear();
    let paused = paused?;
    if common.json {
        return table::json(io, &paused);
    }
    writeln!(
        io.output,
        "paused: no transaction is open; promote a replica now, then: pgusher cluster resume {}",
        paused.cluster
    )?;
    if let Some(until) = paused.paused_until {
        writeln!(io.output, "it goes on by itself at {}", table::time(until))?;
    }
    Ok(())
}

/// Proxies are started elsewhere: the registry keeps the whole path.
fn absolute(path: &std::path::Path) -> Result<String, UsageError> {
    let found = std::fs::canonicalize(path);
    let found = found
        .map_err(|error| UsageError::SecretFile(path.display().to_string(), error.to_string()))?;
    Ok(found.display().to_string())
}

/// The address and TLS of the cluster of this name in proxy.toml.
fn take_address(new: &mut NewCluster, file: &ConfigFile) -> anyhow::Result<()> {
    let config = Config::load(&file.config)?;
    let found = config
        .clusters
        .iter()
        .find(|cluster| cluster.name.as_str() == new.name);
    let found = found.ok_or_else(|| {
        UsageError::NoPrimary(file.config.display().to_string(), new.name.clone())
    })?;
    new.primary_url = print_cluster_url(&found.primary);
    if new.replica_urls.is_empty() {
        new.replica_urls = found.replicas.iter().map(print_replica_url).collect();
    }
    if new.tls.is_none() {
        let (tls, ca) = match &found.tls {
            UpstreamTls::Disable => ("disable", None),
            UpstreamTls::Require => ("require", None),
            UpstreamTls::VerifyCa(ca) => ("verify-ca", ca.as_ref()),
            UpstreamTls::VerifyFull(ca) => ("verify-full", ca.as_ref()),
        };
        new.tls = Some(tls.to_owned());
        new.tls_ca = ca.map(|path| absolute(path)).transpose()?;
    }
    Ok(())
}

fn password(args: &AddArgs, io: &mut Io<'_>) -> anyhow::Result<Option<Secret>> {
    if let Some(name) = &args.admin_password_env {
        let value = std::env::var(name).map(Secret::new);
        let value = value.ok().filter(|value| !value.expose().is_empty());
        return Ok(Some(
            value.ok_or_else(|| UsageError::Environment(name.clone()))?,
        ));
    }
    if let Some(path) = &args.admin_password_file {
        let text = std::fs::read_to_string(path).map(Zeroizing::new);
        let text = text.map_err(|error| {
            UsageError::SecretFile(path.display().to_string(), error.to_string())
        })?;
        return Ok(Some(first_line(&text)));
    }
    if !args.admin_password_stdin {
        return Ok(None);
    }
    if io.is_interactive {
        write!(io.talk, "Password of {}: ", args.admin_role)?;
        io.talk.flush()?;
    }
    let mut line = Zeroizing::new(String::new());
    io.input.read_line(&mut line)?;
    Ok(Some(first_line(&line)))
}

fn first_line(text: &str) -> Secret {
    Secret::new(text.lines().next().unwrap_or_default().to_owned())
}

fn list(common: &Common, io: &mut Io<'_>) -> anyhow::Result<()> {
    let clusters = control::run(&common.config, |control, actor| async move {
        Ok(control.clusters(&actor).await?)
    })?;
    if common.json {
        return table::json(io, &clusters);
    }
    let headings = [
        "cluster",
        "primary",
        "replicas",
        "region",
        "admin",
        "profile",
        "paused until",
        "open",
    ];
    let now = OffsetDateTime::now_utc();
    let mut table = table::table(&headings);
    for cluster in clusters {
        let open = cluster.open_holes.as_array().map_or(0, Vec::len);
        table.add_row([
            cluster.name,
            cluster.primary_url,
            cluster.replica_urls.join("\n"),
            cluster.region.unwrap_or_default(),
            cluster.admin_role,
            cluster.profile,
            table::maybe_time(cluster.paused_until.filter(|until| *until > now)),
            open.to_string(),
        ]);
    }
    table::print(io, &table)
}

fn shown(cluster: &ClusterView, is_json: bool, io: &mut Io<'_>) -> anyhow::Result<()> {
    if is_json {
        table::json(io, cluster)
    } else {
        table::record(io, cluster)
    }
}

fn done(cluster: &ClusterView, what: &str, is_json: bool, io: &mut Io<'_>) -> anyhow::Result<()> {
    if is_json {
        return table::json(io, cluster);
    }
    writeln!(io.output, "cluster {} {what}", cluster.name)?;
    for hole in cluster.open_holes.as_array().into_iter().flatten() {
        let part = |field: &str| hole.get(field).map(table::text).unwrap_or_default();
        let (name, what, way) = (part("name"), part("what"), part("way_out"));
        writeln!(io.output, "open: {name}: {what} ({way})")?;
    }
    Ok(())
}

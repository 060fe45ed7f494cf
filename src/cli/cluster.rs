//! `pgusher cluster`.

use super::{ConfigFile, Io, UsageError, control, table, tenant};
use crate::{
    config::{Config, print_cluster_url, print_replica_url},
    control::{ClusterView, NewCluster},
    tenant::{Secret, UpstreamTls},
};
use clap::{ArgGroup, Args, Subcommand};
use std::path::PathBuf;
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
    /// Harden a cluster another way, with all databases that tenants have or share there
    Set(SetArgs),
    /// Add a hot standby
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
    /// A hot standby; can be given more than once
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
pub(super) struct SetArgs {
    /// The cluster
    name: String,
    /// strict, compatible or sealed: as of `pgusher cluster add`
    #[arg(long)]
    profile: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct ReplicaArgs {
    /// The cluster
    name: String,
    /// Its address
    #[arg(value_name = "postgres://HOST[:PORT]")]
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
        ClusterCommand::Set(args) => set(args, io),
        ClusterCommand::RemoveReplica(ReplicaArgs { name, url, common }) => {
            let cluster = control::run(&common.config, |control, actor| async move {
                Ok(control.remove_replica(&actor, &name, &url).await?)
            });
            done(&cluster?, "has one replica less", common.json, io)
        }
        ClusterCommand::AddReplica(ReplicaArgs { name, url, common }) => {
            let cluster = control::run(&common.config, |control, actor| async move {
                Ok(control.add_replica(&actor, &name, &url).await?)
            });
            done(&cluster?, "has another replica", common.json, io)
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
        common,
    } = args;
    let spinner = tenant::spinner("hardening it");
    let cluster = control::run(&common.config, |control, actor| async move {
        Ok(control.set_profile(&actor, &name, &profile).await?)
    });
    spinner.finish_and_clear();
    let cluster = cluster?;
    let what = format!("is hardened by the profile {}", cluster.profile);
    done(&cluster, &what, common.json, io)
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
        "cluster", "primary", "replicas", "region", "admin", "profile", "open",
    ];
    let mut table = table::table(&headings);
    for cluster in clusters {
        let open = cluster.open_holes.as_array().map_or(0, Vec::len);
        table.add_row([
            cluster.name,
            cluster.primary_url,
            cluster.replica_urls.len().to_string(),
            cluster.region.unwrap_or_default(),
            cluster.admin_role,
            cluster.profile,
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

//! A tenant's data, written to a file before it goes.
//!
//! Tiers `database` and `schema`: an archive that `pg_restore` reads, made by PostgreSQL's own
//! `pg_dump` as the admin. Tier `row`: other tenants' rows are in the same tables, so the tenant's
//! own are copied, as an SQL text of `COPY … FROM stdin` that psql reads.

use super::{
    ControlError,
    place::{Cause, Site},
};
use crate::{
    sql::{quoted_literal, quoted_name},
    tenant::{Address, Tier, UpstreamTls},
};
use sqlx::{Connection as _, PgConnection};
use std::{
    env,
    ffi::OsString,
    fs::OpenOptions,
    future::poll_fn,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{process::Command, time::timeout};

/// A dump that takes longer is given up.
const TIME_MAX: Duration = Duration::from_hours(12);
const MISSING: &str = "no pg_dump found: install PostgreSQL's client programs, or point PGUSHER_PG_BIN to the folder that holds it";

/// That a file can be written there: it must not be there yet.
///
/// # Errors
/// [`ControlError::Invalid`].
pub(super) fn check(path: &Path) -> Result<(), ControlError> {
    let wrong = |problem: String| {
        Err(ControlError::Invalid {
            field: "dump".to_owned(),
            problem,
        })
    };
    if path.exists() {
        return wrong(format!("{} is there already", path.display()));
    }
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() || folder.is_dir() => Ok(()),
        _ => wrong(format!("{} is in no folder", path.display())),
    }
}

/// Writes a tenant's data: whole, or nothing is there under this name.
pub(super) async fn write(site: &Site, path: &Path) -> Result<(), Cause> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    // It holds everything that the tenant has: for us alone.
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600);
    let file = file.open(&part)?;
    let dumping = async {
        match site.place.tier {
            Tier::Row => copy_rows(site, &file).await,
            Tier::Database | Tier::Schema => pg_dump(site, &file).await,
        }
    };
    let dumped = timeout(TIME_MAX, dumping).await;
    let dumped = dumped.unwrap_or_else(|elapsed| Err(elapsed.into()));
    let written = dumped.and_then(|()| {
        file.sync_all()?;
        Ok(std::fs::rename(&part, path)?)
    });
    if written.is_err() {
        std::fs::remove_file(&part).ok();
    }
    written
}

async fn pg_dump(site: &Site, file: &std::fs::File) -> Result<(), Cause> {
    let program = program().ok_or(MISSING)?;
    let mut command = Command::new(program);
    command
        .args(["--format=custom", "--no-password"])
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .envs(environment(site))
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let (Tier::Schema, Some(schema)) = (site.place.tier, &site.place.schema) {
        // A pattern: in quotes it is a name.
        command.arg(format!("--schema={}", quoted_name(schema)));
    }
    let output = command.spawn()?.wait_with_output().await?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(format!("pg_dump ended with {}: {}", output.status, told.trim()).into())
}

/// How `pg_dump` connects. The environment of a process is seen by its own user alone.
fn environment(site: &Site) -> Vec<(&'static str, OsString)> {
    let admin = &site.ground.admin;
    let (host, port) = match &admin.address {
        Address::Tcp { host, port } => (OsString::from(&**host), port.to_string()),
        Address::Unix(file) => {
            let port = file.extension().unwrap_or_default().to_string_lossy();
            let folder = file.parent().unwrap_or(Path::new("/"));
            (folder.as_os_str().to_owned(), port.into_owned())
        }
    };
    let (mode, ca) = match &admin.tls {
        // A socket has no TLS, and programs without it refuse to hear of it.
        _ if matches!(admin.address, Address::Unix(_)) => ("disable", None),
        UpstreamTls::Disable => ("disable", None),
        UpstreamTls::Require => ("require", None),
        UpstreamTls::VerifyCa(ca) => ("verify-ca", ca.as_ref()),
        UpstreamTls::VerifyFull(ca) => ("verify-full", ca.as_ref()),
    };
    let mut variables = vec![
        ("PGHOST", host),
        ("PGPORT", port.into()),
        ("PGUSER", OsString::from(&*admin.role)),
        ("PGDATABASE", OsString::from(&*site.place.database)),
        ("PGSSLMODE", mode.into()),
        ("PGAPPNAME", "pgusher".into()),
        (
            "PGCONNECT_TIMEOUT",
            admin.connect_timeout.as_secs().max(2).to_string().into(),
        ),
    ];
    variables.extend(ca.map(|path| ("PGSSLROOTCERT", path.as_os_str().to_owned())));
    let password = admin.password.as_ref();
    variables.extend(password.map(|password| ("PGPASSWORD", password.expose().into())));
    variables
}

/// `PGUSHER_PG_BIN` decides alone; else `PATH`, then the newest of `/usr/lib/postgresql/*/bin`:
/// one that is older than the server refuses, and says so.
fn program() -> Option<PathBuf> {
    let within = |folder: PathBuf| Some(folder.join("pg_dump")).filter(|program| program.is_file());
    if let Some(folder) = env::var_os("PGUSHER_PG_BIN").filter(|folder| !folder.is_empty()) {
        return within(folder.into());
    }
    let installed = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut installed: Vec<(u32, PathBuf)> = installed
        .filter_map(|entry| {
            let major = entry.file_name().to_str()?.parse().ok()?;
            Some((major, entry.path().join("bin")))
        })
        .collect();
    installed.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    let newest = installed.into_iter().map(|(_, folder)| folder);
    let path = env::var_os("PATH").unwrap_or_default();
    newest.chain(env::split_paths(&path)).find_map(within)
}

/// Every table of the tenants' data with a column of the tenant's, and its columns in order.
const TABLES: &str = "
    SELECT c.oid::regclass::text, c.relname::text,
           string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE n.nspname = 'data' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND a.attname <> 'tenant_id' AND a.attgenerated = ''
      AND EXISTS (SELECT FROM pg_attribute t WHERE t.attrelid = c.oid AND t.attname = 'tenant_id')
    GROUP BY c.oid, c.relname ORDER BY c.relname";

/// One transaction, so that rows that belong together are together; an admin whom row security
/// would keep rows from is refused instead.
async fn copy_rows(site: &Site, mut file: &std::fs::File) -> Result<(), Cause> {
    let options = site.ground.options(&site.place.database);
    let mut db = PgConnection::connect_with(&options).await?;
    sqlx::raw_sql(
        "SET row_security = off; SET search_path = ''; SET client_encoding = 'UTF8';
         BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
    )
    .execute(&mut db)
    .await?;
    let tables: Vec<(String, String, String)> = sqlx::query_as(TABLES).fetch_all(&mut db).await?;
    writeln!(
        file,
        "-- Rows of one tenant. Read it with psql, in the order that foreign keys need."
    )?;
    let token = quoted_literal(&site.place.token);
    for (table, name, columns) in tables {
        let sql =
            format!("COPY (SELECT {columns} FROM {table} WHERE tenant_id = {token}) TO STDOUT");
        writeln!(
            file,
            "\nCOPY {} ({columns}) FROM stdin;",
            quoted_name(&name)
        )?;
        copy(&mut db, &sql, file).await?;
        writeln!(file, "\\.")?;
    }
    sqlx::raw_sql("COMMIT").execute(&mut db).await?;
    db.close().await.ok();
    Ok(())
}

async fn copy(db: &mut PgConnection, sql: &str, mut file: &std::fs::File) -> Result<(), Cause> {
    let mut rows = db.copy_out_raw(sql).await?;
    while let Some(part) = poll_fn(|cx| rows.as_mut().poll_next(cx)).await {
        file.write_all(&part?)?;
    }
    Ok(())
}

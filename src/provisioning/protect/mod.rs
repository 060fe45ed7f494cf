//! Turns tables into tables of tier `row`: one for all tenants, in which each finds its own rows.
//!
//! The table itself is out of the tenants' reach, in the schema `data`. They use a view of its name in
//! `app`, whose owner may read and write the columns but not the table, so nobody can lock it. Who
//! the tenant is, says `ctl.tenant()`; everything that could tell one tenant of another's values
//! leads with it (keys, indexes, foreign keys) or is not there (statistics, sequences).
//!
//! An application that never mentions the tenant works, but for: `ON CONFLICT (key)`, which must
//! name `tenant_id` among the columns (without columns it works), COPY to and from the table
//! (`COPY (SELECT …) TO` works), TRUNCATE, MERGE, LOCK TABLE, `WHERE CURRENT OF`, the columns `ctid` and
//! `xmin`, and `currval`. DELETE finds its rows first and deletes them by key: a row that somebody
//! changes in between is not compared with the condition again.

mod definitions;
mod refusals;
mod steps;
mod table;

use super::{
    Admin, ProvisioningError,
    admin::Session,
    patience::{LOCK_TIME_MAX, Patience},
    text::fill,
};
use crate::sql::{quoted_literal, quoted_name};
use serde::Serialize;
use table::Table;

const LOOK: &str = include_str!("../sql/protect_look.sql");

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What it does.
    pub what: String,
    /// The statements.
    pub sql: String,
}

impl Step {
    fn new(what: impl Into<String>, sql: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            sql: sql.into(),
        }
    }
}

/// What stands in the way of protecting a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The table, with its schema.
    pub table: String,
    /// Why, and the way out.
    pub problem: String,
}

/// Why tables were not protected. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ProtectError {
    /// There is no such table in `data` or `public`, or in the schema that was named.
    #[error("there is no table {0:?} in schema data or public")]
    NoTable(String),
    /// Something stands in the way.
    #[error("{}", Listed(.0))]
    Obstacles(Vec<Obstacle>),
    /// The cluster.
    #[error(transparent)]
    Provisioning(#[from] ProvisioningError),
}

impl ProtectError {
    /// What PostgreSQL said, if it was that.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Provisioning(error) => error.code(),
            Self::NoTable(_) | Self::Obstacles(_) => None,
        }
    }
}

struct Listed<'a>(&'a [Obstacle]);

impl std::fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, Obstacle { table, problem }) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "; " };
            write!(f, "{comma}{table}: {problem}")?;
        }
        Ok(())
    }
}

/// What protecting the tables of a database would do: nothing when they are protected already.
/// `assign` is the token of the tenant whose the rows are that have none.
///
/// # Errors
/// [`ProtectError`].
///
/// # Cancel safety
/// Cancel safe: it only looks.
pub async fn plan_protection(
    admin: &Admin,
    database: &str,
    tables: &[String],
    assign: Option<&str>,
) -> Result<Vec<Step>, ProtectError> {
    let mut session = admin.connect(database).await?;
    let steps = look(&mut session, tables, assign).await;
    session.end().await;
    steps
}

/// Protects the tables of a database, all of them or none, and says what was done. Who uses them
/// waits for half a second at a time; when they are in use for about a minute it gives up (55P03).
///
/// # Errors
/// [`ProtectError`].
///
/// # Cancel safety
/// It is done as a whole or not at all; run it again.
pub async fn protect(
    admin: &Admin,
    database: &str,
    tables: &[String],
    assign: Option<&str>,
) -> Result<Vec<Step>, ProtectError> {
    let mut session = admin.connect(database).await?;
    let mut patience = Patience::default();
    let done = loop {
        let done = protect_once(&mut session, tables, assign).await;
        match done {
            Err(error) if patience.tries_again(error.code()).await => {}
            done => break done,
        }
    };
    session.end().await;
    done
}

async fn protect_once(
    session: &mut Session,
    tables: &[String],
    assign: Option<&str>,
) -> Result<Vec<Step>, ProtectError> {
    let limits = format!("BEGIN; SET LOCAL lock_timeout = '{LOCK_TIME_MAX}'");
    session.run("begin a transaction", &limits).await?;
    let done = protect_in(session, tables, assign).await;
    let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = session.run_once("end a transaction", end).await;
    let steps = done?;
    ended?;
    Ok(steps)
}

async fn protect_in(
    session: &mut Session,
    names: &[String],
    assign: Option<&str>,
) -> Result<Vec<Step>, ProtectError> {
    let oids = oids(session, names).await?;
    // What is planned must still be so when it is done.
    let tables: Vec<(String,)> = session
        .rows(
            "look at tables",
            &format!(
                "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ({}) AND c.relkind = 'r'",
                array(&oids)
            ),
        )
        .await?;
    for (table,) in tables {
        let lock = format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
        session.run_once("lock a table", &lock).await?;
    }
    let steps = look_at(session, &oids, assign).await?;
    run(session, &steps).await?;
    Ok(steps)
}

/// Protects every table of `data`, in the transaction that is open.
pub(super) async fn protect_all(session: &mut Session) -> Result<Vec<Step>, ProtectError> {
    let oids: Vec<(i64,)> = session
        .rows(
            "look for tables",
            "SELECT c.oid::bigint FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'data' AND c.relkind IN ('r', 'p', 'f', 'm') AND c.relname NOT IN ('canary', 'pgusher_counter')",
        )
        .await?;
    let oids: Vec<i64> = oids.into_iter().map(|(oid,)| oid).collect();
    let steps = look_at(session, &oids, None).await?;
    run(session, &steps).await?;
    Ok(steps)
}

/// Drops the views of `app` that show tables of `data`, in the transaction that is open:
/// [`protect_all`] makes them anew.
pub(super) async fn drop_views(session: &mut Session) -> Result<(), ProvisioningError> {
    let drop = "DO $views$ DECLARE it record; BEGIN
        FOR it IN SELECT v.relname FROM pg_catalog.pg_class v JOIN pg_catalog.pg_roles r ON r.oid = v.relowner
            WHERE v.relnamespace = 'app'::regnamespace AND v.relkind = 'v' AND r.rolname = 'pgusher_view'
              AND to_regclass(format('data.%I', v.relname)) IS NOT NULL
        LOOP
            EXECUTE format('DROP VIEW app.%I', it.relname);
        END LOOP;
    END $views$";
    session.run_once("drop views", drop).await
}

async fn run(session: &mut Session, steps: &[Step]) -> Result<(), ProvisioningError> {
    for step in steps {
        session.run_once("protect a table", &step.sql).await?;
    }
    Ok(())
}

async fn look(
    session: &mut Session,
    names: &[String],
    assign: Option<&str>,
) -> Result<Vec<Step>, ProtectError> {
    let oids = oids(session, names).await?;
    look_at(session, &oids, assign).await
}

async fn look_at(
    session: &mut Session,
    oids: &[i64],
    assign: Option<&str>,
) -> Result<Vec<Step>, ProtectError> {
    let query = fill(LOOK, &[("oids", &array(oids))]);
    let rows: Vec<(String,)> = session.rows("look at tables", &query).await?;
    let mut tables: Vec<Table> = Vec::with_capacity(rows.len());
    for (row,) in rows {
        let table = serde_json::from_str(&row).map_err(|error| ProvisioningError::Unreachable {
            address: "the catalogue".to_owned(),
            reason: error.to_string(),
        })?;
        tables.push(table);
    }
    for table in &mut tables {
        table.has_unknown_rows = has_unknown_rows(session, table).await?;
    }
    let mut obstacles = Vec::new();
    for table in &tables {
        let problems = refusals::of(table, &tables, assign.is_some());
        obstacles.extend(problems.into_iter().map(|problem| Obstacle {
            table: table.title(),
            problem,
        }));
    }
    if !obstacles.is_empty() {
        return Err(ProtectError::Obstacles(obstacles));
    }
    let counter: Vec<(bool,)> = session
        .rows(
            "look for counters",
            "SELECT pg_catalog.to_regclass('data.pgusher_counter') IS NOT NULL",
        )
        .await?;
    let has_counter = counter.first().is_some_and(|(is_there,)| *is_there);
    Ok(steps::of(&tables, has_counter, assign))
}

/// Whether there are rows that belong to nobody. Of a table that is protected all are somebody's.
async fn has_unknown_rows(session: &mut Session, table: &Table) -> Result<bool, ProvisioningError> {
    if table.kind != "r" || table.has_rls {
        return Ok(false);
    }
    let condition = match table.column("tenant_id") {
        Some(column) if column.kind == "text" => {
            "WHERE tenant_id IS NULL OR tenant_id OPERATOR(pg_catalog.!~) '^[a-z2-7]{20}$'"
        }
        _ => "",
    };
    let query = format!(
        "SELECT EXISTS (SELECT FROM {}.{} {condition})",
        quoted_name(&table.schema),
        quoted_name(&table.name)
    );
    let rows: Vec<(bool,)> = session.rows("look for rows", &query).await?;
    Ok(rows.first().is_some_and(|(is_so,)| *is_so))
}

async fn oids(session: &mut Session, names: &[String]) -> Result<Vec<i64>, ProtectError> {
    let mut oids = Vec::with_capacity(names.len());
    for name in names {
        let (schemas, bare) = match name.split_once('.') {
            Some((schema, bare)) => (quoted_literal(schema), bare),
            None => ("'data', 'public'".to_owned(), name.as_str()),
        };
        let query = format!(
            "SELECT c.oid::bigint FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname IN ({schemas}) AND c.relname = {} AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
             ORDER BY n.nspname LIMIT 1",
            quoted_literal(bare)
        );
        let found: Vec<(i64,)> = session.rows("look for a table", &query).await?;
        let (oid,) = found
            .first()
            .ok_or_else(|| ProtectError::NoTable(name.clone()))?;
        oids.push(*oid);
    }
    Ok(oids)
}

fn array(oids: &[i64]) -> String {
    let oids: Vec<String> = oids.iter().map(ToString::to_string).collect();
    format!("ARRAY[{}]::oid[]", oids.join(", "))
}

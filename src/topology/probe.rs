//! The connection to one server, and what is asked there.

use super::{
    Lsn,
    figures::{REFUSED, TIMEOUT, UNREACHABLE},
    lsn::Layout,
    roles::Standing,
};
use crate::tenant::{Address, Cluster, Secret, UpstreamTls, Watch};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use std::path::Path;
use tokio::time::{Instant, timeout_at};

/// Why a server did not say what it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// Nobody listens, the connection ended, or it shuts down or starts.
    #[error("{0}")]
    Unreachable(String),
    /// It took longer than `watch_timeout`.
    #[error("it did not answer in time")]
    Timeout,
    /// It works, and answered with an error: the login, the database, a privilege, no place.
    #[error("{message} ({code})")]
    Refused { code: String, message: String },
}

impl Fault {
    /// For the metric.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => UNREACHABLE,
            Self::Timeout => TIMEOUT,
            Self::Refused { .. } => REFUSED,
        }
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        let refusal = match &error {
            sqlx::Error::Database(refusal) => refusal,
            sqlx::Error::Io(cause) if cause.kind() == std::io::ErrorKind::TimedOut => {
                return Self::Timeout;
            }
            other => return Self::Unreachable(other.to_string()),
        };
        let code = refusal.code().unwrap_or_default().into_owned();
        let message = refusal.message().to_owned();
        // It shuts down, has crashed, or starts (57P01 to 57P03); or ends all connections.
        if code.starts_with("57P") || code.starts_with("08") {
            return Self::Unreachable(format!("{message} ({code})"));
        }
        // Its own limit came first.
        if code == "57014" {
            return Self::Timeout;
        }
        Self::Refused { code, message }
    }
}

/// What a server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) standing: Standing,
    /// A primary's insert position, or what a standby has replayed.
    pub(super) lsn: Lsn,
    /// What of a primary's WAL is on disk, and so on its way to standbys.
    pub(super) flushed: Lsn,
}

/// The primary's position, for those who have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) timeline: u32,
    pub(super) lsn: Lsn,
}

/// Asks one server. A connection that is cut off in the middle of a question is never used again.
pub(super) struct Prober<'a> {
    address: &'a Address,
    cluster: &'a Cluster,
    watch: &'a Watch,
    link: Option<Link>,
}

struct Link {
    db: PgConnection,
    layout: Layout,
    system: Option<i64>,
    probe: String,
    /// The highest timeline that was proven while this connection stood, and so the server: it does
    /// not go back, though nothing may prove it any more (its receiver has ended).
    timeline: u32,
}

const PRIVILEGES: &str = "SELECT pg_catalog.current_setting('wal_block_size')::pg_catalog.int8,
    pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')),
    pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE'),
    pg_catalog.has_function_privilege('pg_catalog.pg_control_recovery()', 'EXECUTE')
        AND pg_catalog.has_function_privilege('pg_catalog.pg_control_checkpoint()', 'EXECUTE'),
    pg_catalog.has_function_privilege('pg_catalog.pg_stat_get_wal_receiver()', 'EXECUTE')";

const SYSTEM: &str = "SELECT system_identifier FROM pg_catalog.pg_control_system()";

/// The end of the WAL, and the file it is in, whose name begins with the timeline.
const SAMPLE: &str = "SELECT lsn::pg_catalog.text, pg_catalog.pg_walfile_name(lsn)
    FROM (SELECT pg_catalog.pg_current_wal_insert_lsn() AS lsn OFFSET 0) AS s";

/// Its commit is a record of its own, which is written out with all before it.
const FLUSH: &str = "SELECT pg_catalog.pg_current_xact_id()";

/// The timeline of the last checkpoint that was replayed, and of the last page that was written out.
/// Both come late: at the next one.
const CONTROL: &str = "(SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()),
    (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())";

/// The timeline that is received: a standby asks for one only when what it has replayed is part of
/// that one's history. Seen by members of `pg_read_all_stats`.
const RECEIVER: &str = "(SELECT received_tli FROM pg_catalog.pg_stat_get_wal_receiver())";

const UNKNOWN: &str = "NULL::pg_catalog.int4";

fn probe_sql(may_read_control: bool, may_read_receiver: bool) -> String {
    let unknown = format!("{UNKNOWN}, {UNKNOWN}");
    let control = if may_read_control { CONTROL } else { &unknown };
    let receiver = if may_read_receiver { RECEIVER } else { UNKNOWN };
    format!(
        "SELECT r, CASE WHEN r THEN pg_catalog.pg_last_wal_replay_lsn() ELSE lsn END::pg_catalog.text, \
         CASE WHEN NOT r THEN pg_catalog.pg_walfile_name(lsn) END, \
         CASE WHEN NOT r THEN pg_catalog.pg_current_wal_flush_lsn() END::pg_catalog.text, t.* \
         FROM (SELECT r, CASE WHEN NOT r THEN pg_catalog.pg_current_wal_insert_lsn() END AS lsn \
         FROM (SELECT pg_catalog.pg_is_in_recovery() AS r OFFSET 0) AS recovery OFFSET 0) AS s \
         LEFT JOIN LATERAL (SELECT {control}, {receiver} OFFSET 0) AS t ON r"
    )
}

type Row = (
    bool,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<i32>,
    Option<i32>,
    Option<i32>,
);

impl<'a> Prober<'a> {
    pub(super) fn new(address: &'a Address, cluster: &'a Cluster, watch: &'a Watch) -> Self {
        Self {
            address,
            cluster,
            watch,
            link: None,
        }
    }

    /// Whether there is a connection that nothing is known against.
    pub(super) fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// What the server is, and how far.
    ///
    /// # Errors
    /// [`Fault`], after `watch_timeout` at the latest.
    ///
    /// # Cancel safety
    /// The connection is lost.
    pub(super) async fn ask(&mut self) -> Result<Answer, Fault> {
        let deadline = self.deadline();
        let mut link = self.take_or_connect(deadline).await?;
        let query = sqlx::query_as::<_, Row>(AssertSqlSafe(link.probe.clone()));
        let asked = timeout_at(deadline, query.fetch_one(&mut link.db)).await;
        let row = asked.map_err(|_elapsed| Fault::Timeout)??;
        let answer = link.answer(row);
        self.link = Some(link);
        answer
    }

    /// How far the primary is. A standby refuses it (55000).
    ///
    /// # Errors
    /// [`Fault`], after `watch_timeout` at the latest.
    ///
    /// # Cancel safety
    /// The connection is lost.
    pub(super) async fn sample(&mut self) -> Result<Sample, Fault> {
        let deadline = self.deadline();
        let mut link = self.take_or_connect(deadline).await?;
        let query = sqlx::query_as::<_, (String, String)>(SAMPLE);
        let asked = timeout_at(deadline, query.fetch_one(&mut link.db)).await;
        let (lsn, file) = asked.map_err(|_elapsed| Fault::Timeout)??;
        let sample = Sample {
            timeline: timeline_of(&file)?,
            lsn: link.layout.end(position_of(&lsn)?),
        };
        self.link = Some(link);
        Ok(sample)
    }

    /// Has the primary write out what it has in memory, by a transaction that commits. Nobody else does
    /// while the last that was written is of a transaction that goes on.
    ///
    /// # Errors
    /// [`Fault`], after `watch_timeout` at the latest.
    ///
    /// # Cancel safety
    /// The connection is lost.
    pub(super) async fn flush(&mut self) -> Result<(), Fault> {
        let deadline = self.deadline();
        let mut link = self.take_or_connect(deadline).await?;
        let asked = timeout_at(deadline, sqlx::raw_sql(FLUSH).execute(&mut link.db)).await;
        asked.map_err(|_elapsed| Fault::Timeout)??;
        self.link = Some(link);
        Ok(())
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.cluster.standbys.watch_timeout
    }

    async fn take_or_connect(&mut self, deadline: Instant) -> Result<Link, Fault> {
        if let Some(link) = self.link.take() {
            return Ok(link);
        }
        let connecting = timeout_at(deadline, self.connect());
        connecting.await.unwrap_or(Err(Fault::Timeout))
    }

    async fn connect(&self) -> Result<Link, Fault> {
        let mut db = self.options().connect().await?;
        let query = sqlx::query_as::<_, (i64, i64, bool, bool, bool)>(PRIVILEGES);
        let (page, segment, system, control, receiver) = query.fetch_one(&mut db).await?;
        let system = if system {
            let query = sqlx::query_scalar::<_, i64>(SYSTEM);
            Some(query.fetch_one(&mut db).await?)
        } else {
            None
        };
        Ok(Link {
            db,
            layout: Layout {
                page: page.unsigned_abs(),
                segment: segment.unsigned_abs(),
            },
            system,
            probe: probe_sql(control, receiver),
            // All began on the first.
            timeline: 1,
        })
    }

    fn options(&self) -> PgConnectOptions {
        let limit = self.cluster.standbys.watch_timeout.as_millis().max(1);
        let limit = limit.to_string();
        let login = &self.watch.login;
        let mut options = PgConnectOptions::new_without_pgpass()
            .username(&login.role)
            .password(login.password.as_ref().map_or("", Secret::expose))
            .database(&self.watch.database)
            .application_name("pgusher watch")
            // Whatever the role's own settings are; a standby can't do `serializable`.
            .options([
                ("statement_timeout", limit.as_str()),
                ("search_path", ""),
                ("default_transaction_isolation", "read committed"),
                ("idle_session_timeout", "0"),
                // On disk, and not waiting for a standby.
                ("synchronous_commit", "local"),
                ("client_min_messages", "error"),
            ])
            .disable_statement_logging();
        options = match self.address {
            Address::Tcp { host, port } => options.host(host).port(*port),
            Address::Unix(path) => {
                let (folder, port) = socket(path);
                options.socket(folder).port(port)
            }
        };
        let (mode, ca) = match &self.cluster.tls {
            _ if matches!(self.address, Address::Unix(_)) => (PgSslMode::Disable, &None),
            UpstreamTls::Disable => (PgSslMode::Disable, &None),
            UpstreamTls::Require => (PgSslMode::Require, &None),
            UpstreamTls::VerifyCa(ca) => (PgSslMode::VerifyCa, ca),
            UpstreamTls::VerifyFull(ca) => (PgSslMode::VerifyFull, ca),
        };
        options = options.ssl_mode(mode);
        if let Some(ca) = ca {
            options = options.ssl_root_cert(ca);
        }
        match &self.cluster.client_certificate {
            Some((certificate, key)) if !matches!(mode, PgSslMode::Disable) => {
                options.ssl_client_cert(certificate).ssl_client_key(key)
            }
            _ => options,
        }
    }
}

impl Link {
    fn answer(&mut self, row: Row) -> Result<Answer, Fault> {
        let (is_standby, lsn, file, flushed, recovery, checkpoint, receiver) = row;
        let lsn = lsn.map_or(Ok(Lsn::default()), |lsn| position_of(&lsn))?;
        let known = [recovery, checkpoint, receiver];
        let known = known.into_iter().flatten().map(i32::cast_unsigned);
        let shown = match file {
            Some(file) => timeline_of(&file)?,
            None => known.fold(1, u32::max),
        };
        self.timeline = self.timeline.max(shown);
        let standing = Standing {
            is_primary: !is_standby,
            timeline: self.timeline,
            system: self.system,
        };
        let lsn = if is_standby {
            lsn
        } else {
            self.layout.end(lsn)
        };
        let flushed = flushed.map_or(Ok(Lsn::default()), |lsn| position_of(&lsn))?;
        Ok(Answer {
            standing,
            lsn,
            flushed: self.layout.end(flushed),
        })
    }
}

fn unexpected(what: &str) -> Fault {
    Fault::Refused {
        code: "XX000".to_owned(),
        message: format!("{what:?} was not expected"),
    }
}

fn position_of(text: &str) -> Result<Lsn, Fault> {
    text.parse()
        .map_err(|_bad: super::lsn::LsnError| unexpected(text))
}

/// The first eight digits of the name of a file of the WAL.
fn timeline_of(file: &str) -> Result<u32, Fault> {
    let digits = file.get(..8).unwrap_or_default();
    u32::from_str_radix(digits, 16).map_err(|_bad| unexpected(file))
}

/// The folder and the port of a socket file, such as `/run/postgresql/.s.PGSQL.5432`.
fn socket(path: &Path) -> (&Path, u16) {
    let port = path
        .extension()
        .and_then(|port| port.to_str()?.parse().ok());
    (path.parent().unwrap_or(path), port.unwrap_or(5432))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_wal_file_begins_with_the_timeline() {
        assert_eq!(timeline_of("0000001A000000000000002B").ok(), Some(26));
        for bad in ["", "0000001", "not a file"] {
            assert!(timeline_of(bad).is_err(), "{bad}");
        }
    }
}

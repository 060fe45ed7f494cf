//! The streaming replica: a copy of the primary's data directory from before its first start,
//! which then reads the primary's log from the beginning. No `pg_basebackup` needed.

use anyhow::{Context as _, bail};
use std::{
    fs,
    time::{Duration, Instant},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    Interrupted,
    folder::{Folder, write_private},
    postgres::{Launch, Server},
    watchdog::{Ending, Guarded, Program},
};

/// How long it may stay behind.
const CATCH_UP_DEADLINE: Duration = Duration::from_mins(1);

/// How often we look.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Copies the primary's data directory, unless the replica's is there. No server may run yet.
pub(super) async fn copy(
    folder: &Folder,
    primary: &Launch,
    replica: &Launch,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if replica.data.exists() {
        return Ok(());
    }
    folder.remove_dir("replica.new")?;
    let new = folder.path().join("replica.new");
    replica.account.make_private_dir(&new)?;
    let log = folder.log("setup.log", &replica.account)?;
    let program = Program {
        path: "cp".into(),
        args: vec![
            "-Rp".into(),
            primary.data.join(".").display().to_string(),
            new.display().to_string(),
        ],
        ending: Ending::Tool,
        account: &replica.account,
        dir: folder.path(),
        log: &log,
    };
    if !Guarded::start(&program)?.finish(stop).await?.success() {
        bail!("can't copy the data directory; see {}", log.display());
    }
    fs::write(new.join("standby.signal"), "")?;
    let include = "include = 'replica.conf'\n";
    let settings = fs::read_to_string(new.join("postgresql.conf"))? + include;
    fs::write(new.join("postgresql.conf"), settings)?;
    fs::rename(&new, &replica.data)?;
    Ok(())
}

/// Says where the primary is now.
pub(super) fn follow(replica: &Launch, port: u16, password: &str) -> anyhow::Result<()> {
    let path = replica.data.join("replica.conf");
    let settings = format!(
        "primary_conninfo = 'host=127.0.0.1 port={port} user=pgusher_replica \
         password={password} application_name=replica sslmode=disable gssencmode=disable'\n\
         wal_retrieve_retry_interval = '200ms'\n"
    );
    write_private(&path, settings.as_bytes())?;
    replica.account.give(&path)
}

/// Waits until all that stands on the primary now stands on the replica.
pub(super) async fn catch_up(
    primary: &Server,
    replica: &Server,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let source = primary.superuser().connect().await?;
    let copy = replica.superuser().connect().await?;
    let row = source
        .query_one("SELECT pg_current_wal_lsn()::text", &[])
        .await?;
    let position: String = row.try_get(0)?;
    let deadline = Instant::now() + CATCH_UP_DEADLINE;
    loop {
        let row = copy
            .query_one(
                "SELECT pg_is_in_recovery() AND pg_last_wal_replay_lsn() >= $1::text::pg_lsn",
                &[&position],
            )
            .await?;
        let is_there: Option<bool> = row.try_get(0)?;
        if is_there == Some(true) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the replica does not follow:\n{}", replica.log_tail());
        }
        let pause = stop.run_until_cancelled(sleep(LOOK_EVERY)).await;
        pause.ok_or(Interrupted).context("the replica is behind")?;
    }
}

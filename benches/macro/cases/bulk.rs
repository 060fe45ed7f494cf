//! Much data through one connection: CPU per GB, and memory that must not grow with it.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::args::Case;
use crate::figure::Sample;
use crate::lineup::Lineup;
use crate::process::pause;
use crate::procfs::{Cpu, peak_bytes, reset_peak};
use crate::proxy::{Proxy, Setup};
use crate::report::Report;
use crate::stage::Stage;
use crate::wire::{Client, message};

/// One row on the wire is about this long; a `pgbench_accounts` row is, too.
const ROW_BYTES: u64 = 100;
/// The client's read buffer and the size of its writes.
const BUFFER_BYTES: usize = 256 * 1024;
/// CopyData messages of libpq's size.
const COPY_MESSAGE_BYTES: usize = 8 * 1024;
/// How long the reader stalls.
const STALL: Duration = Duration::from_secs(2);

/// What is moved.
#[derive(Clone, Copy, Debug)]
enum Job {
    CopyTo,
    CopyFrom,
    Select,
    ReceiveValue,
    SendValue,
    Stall,
}

impl Job {
    const ALL: [Self; 6] = [
        Self::CopyTo,
        Self::CopyFrom,
        Self::Select,
        Self::ReceiveValue,
        Self::SendValue,
        Self::Stall,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::CopyTo => "COPY TO",
            Self::CopyFrom => "COPY FROM",
            Self::Select => "SELECT",
            Self::ReceiveValue => "one huge value received",
            Self::SendValue => "one huge value sent",
            Self::Stall => "stalled reader",
        }
    }

    /// Returns the bytes moved.
    fn run(self, client: &mut Client, stage: &Stage) -> Result<u64> {
        let value = stage.sizes.value_bytes;
        match self {
            Self::CopyTo => client.query("COPY bulk TO STDOUT"),
            Self::CopyFrom => copy_from(client, stage.sizes.bulk_bytes),
            Self::Select => client.query("SELECT * FROM bulk"),
            Self::ReceiveValue => client.query(&format!("SELECT repeat('x', {value})")),
            Self::SendValue => send_value(client, value),
            Self::Stall => stall(client),
        }
    }
}

pub(super) fn run(stage: &Stage, report: &mut Report) {
    if let Err(error) = create_tables(stage) {
        return report.fail("Bulk, tables", &error);
    }
    let mut lineup = Lineup::start(Case::Bulk, &Setup::plain(), stage, report);
    for job in Job::ALL {
        for _ in 0..stage.sizes.rounds {
            lineup.each(report, job.name(), |proxy| measure(proxy, job, stage));
        }
    }
}

fn create_tables(stage: &Stage) -> Result<()> {
    let rows = stage.sizes.bulk_bytes / ROW_BYTES;
    let mut client = Client::login(&stage.postgres.login())?;
    client.query("CREATE UNLOGGED TABLE bulk_in (line text)")?;
    client.query(&format!(
        "CREATE UNLOGGED TABLE bulk AS SELECT repeat('x', {}) AS line \
         FROM generate_series(1, {rows})",
        // Less the header and the line's end.
        ROW_BYTES - 6
    ))?;
    client.terminate()
}

fn measure(proxy: &Proxy, job: Job, stage: &Stage) -> Result<Vec<Sample>> {
    Client::login(&stage.postgres.login())?.query("TRUNCATE bulk_in")?;
    let mut client = Client::login_with_buffer(&proxy.login("bench"), BUFFER_BYTES)?;
    client.query("SELECT 1")?;
    let pid = proxy.pid().ok();
    let before = match pid {
        Some(pid) => {
            reset_peak(pid)?;
            Some((Cpu::of(pid)?, peak_bytes(pid)?))
        }
        None => None,
    };
    let begin = Instant::now();
    let bytes = job.run(&mut client, stage)? as f64;
    let seconds = begin.elapsed().as_secs_f64();
    let mut samples = Vec::new();
    let name = job.name();
    if let Some((pid, (cpu, peak))) = pid.zip(before) {
        let spent = Cpu::of(pid)?.since(&cpu).total.as_secs_f64();
        let growth = peak_bytes(pid)?.saturating_sub(peak) as f64 / 1e6;
        if !matches!(job, Job::Stall) {
            samples.push(Sample::new(
                format!("{name}: CPU per GB"),
                "s",
                spent / bytes * 1e9,
            ));
        }
        samples.push(Sample::new(
            format!("{name}: peak memory growth"),
            "MB",
            growth,
        ));
    }
    if !matches!(job, Job::Stall) {
        samples.push(Sample::new(
            format!("{name}: speed"),
            "MB/s",
            bytes / seconds / 1e6,
        ));
    }
    Ok(samples)
}

fn copy_from(client: &mut Client, bytes: u64) -> Result<u64> {
    let mut line = vec![b'x'; ROW_BYTES as usize - 1];
    line.push(b'\n');
    let lines = line.repeat(COPY_MESSAGE_BYTES / line.len());
    let write = message(b'd', &[&lines]).repeat(BUFFER_BYTES / COPY_MESSAGE_BYTES);
    client.send(&message(b'Q', &[b"COPY bulk_in FROM STDIN\0"]))?;
    client.read_until_copy_in()?;
    let mut sent = 0;
    while sent < bytes {
        client.send(&write)?;
        sent += write.len() as u64;
    }
    client.send(&message(b'c', &[]))?;
    client.read_until_ready()?;
    Ok(sent)
}

/// A parameter of this size, in binary, to the unnamed statement.
fn send_value(client: &mut Client, bytes: u64) -> Result<u64> {
    let value = vec![b'x'; usize::try_from(bytes)?];
    let length = u32::try_from(bytes)?.to_be_bytes();
    let one = 1_u16.to_be_bytes();
    let none = 0_u16.to_be_bytes();
    let parse = message(b'P', &[b"\0SELECT octet_length($1::bytea)\0", &none]);
    let bind = message(b'B', &[b"\0\0", &one, &one, &one, &length, &value, &none]);
    let execute = message(b'E', &[b"\0", &0_u32.to_be_bytes()]);
    client.send(&[parse, bind, execute, message(b'S', &[])].concat())?;
    client.read_until_ready()?;
    Ok(bytes)
}

/// Asks for everything, reads a little, then nothing.
fn stall(client: &mut Client) -> Result<u64> {
    client.send(&message(b'Q', &[b"SELECT * FROM bulk\0"]))?;
    let read = client.read_some()?;
    pause(STALL);
    Ok(read as u64)
}

//! A registry of ten thousand tenants: start, first logins, memory, the copy on disk.

use crate::credential::Credential;
use crate::office::Office;
use crate::report::Report;
use crate::single::timed;
use crate::wire::{Client, Login};
use crate::{process, procfs};
use anyhow::{Context as _, Result, bail};
use pgusher::crypto::{Keyring, Purpose};
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

/// Tenants that log in, each for the first time.
const COLD: usize = 50;

/// Statements of one round trip.
const BATCH: usize = 250;

/// The tenants have no place of their own but share a database, and roles that are trusted: what
/// is measured is pgusher's part.
pub(crate) fn run(program: &Path, count: usize, report: &mut Report) -> Result<()> {
    let mut office = Office::set_up(program)?;
    let credential = Credential::new("pgu_bench");
    fill(&office, 0..1, &credential)?;
    restart(&mut office)?;
    let alone = settled_memory(&office)?;
    fill(&office, 1..count, &credential)?;
    let snapshot = office.path().join("registry.snapshot");
    fs::remove_file(&snapshot).ok();
    let began = Instant::now();
    let start = timed(|| restart(&mut office))?;
    report.number(
        &format!("{count} tenants: start until clients are let in"),
        "ms",
        start,
        "< 1000",
    );
    let first = timed(|| log_in(&office, count - 1, &credential))?;
    report.number("the last tenant's first query right then", "ms", first, "");
    process::retry(Duration::from_mins(2), || {
        let bytes = fs::metadata(&snapshot)?.len();
        if bytes < 300 * count as u64 {
            bail!("the snapshot has {bytes} bytes");
        }
        Ok(())
    })?;
    let written = began.elapsed().as_secs_f64();
    report.number("start until the snapshot has them all", "s", written, "");
    let bytes = fs::metadata(&snapshot)?.len() as f64;
    report.number(
        "the snapshot",
        "kB a tenant",
        bytes / 1e3 / count as f64,
        "",
    );
    let known = settled_memory(&office)?;
    let each = (known - alone) / 1e3 / count as f64;
    report.number("memory, known", "kB a tenant", each, "< 10");
    let (mut through, mut bare) = (vec![], vec![]);
    for number in 1..=COLD.min(count - 1) {
        bare.push(timed(|| log_in_directly(&office, number))?);
        through.push(timed(|| log_in(&office, number, &credential))?);
    }
    report.spread(
        "a cold tenant: login and a query",
        "ms",
        &through,
        Some(&bare),
        "< 50 more",
    );
    let wrong = Credential::derive("pgu_wrong", credential.salt.clone(), credential.iterations);
    for number in 1..count {
        // A wrong key does: the tenant is looked up and made for it.
        log_in(&office, number, &wrong).ok();
        if number % 2000 == 0 {
            println!("  {number} tenants used");
        }
    }
    let used = settled_memory(&office)?;
    let each = (used - alone) / 1e3 / count as f64;
    report.number("memory, each used once", "kB a tenant", each, "< 10");
    Ok(())
}

fn restart(office: &mut Office) -> Result<()> {
    office.stop();
    office.start()
}

/// Resident bytes once nothing moves any more.
fn settled_memory(office: &Office) -> Result<f64> {
    process::pause(Duration::from_secs(5));
    Ok(procfs::resident_bytes(office.pid()?)? as f64)
}

fn log_in(office: &Office, number: usize, credential: &Credential) -> Result<()> {
    let tenant = format!("many{number}");
    let login = Login {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, office.port)),
        user: tenant.clone(),
        database: tenant,
        credential: credential.clone(),
        tls: false,
    };
    Client::login(&login)?.query("SELECT 1").map(drop)
}

fn log_in_directly(office: &Office, number: usize) -> Result<()> {
    let mut login = office.postgres.login();
    login.user = format!("many{number}");
    Client::login(&login)?.query("SELECT 1").map(drop)
}

/// Enters tenants as the control plane would, without making their places.
fn fill(office: &Office, numbers: std::ops::Range<usize>, credential: &Credential) -> Result<()> {
    let line = fs::read_to_string(office.path().join("master.key"))?;
    let keyring = Keyring::parse(&line).context("the master key")?;
    let mut registry = office.admin("registry")?;
    let mut cluster = office.admin("postgres")?;
    registry.query("SET session_replication_role = replica")?;
    let numbers: Vec<_> = numbers.collect();
    for batch in numbers.chunks(BATCH) {
        let mut sql = String::new();
        for number in batch {
            let id = format!("many{number}");
            if *number <= COLD || number + 1 == numbers.len() || numbers.last() == Some(number) {
                cluster.query(&format!("CREATE ROLE {id} LOGIN"))?;
            }
            let owner = format!("tenant:{id}");
            let purpose = Purpose {
                owner: &owner,
                what: "password",
            };
            let password = keyring.seal(purpose, b"a password of forty characters, or nearly")?;
            let token = format!("{number:020}")
                .bytes()
                .map(|digit| char::from(digit + b'a' - b'0'))
                .collect::<String>();
            write!(
                sql,
                "INSERT INTO pgusher.tenant (id, name, tier, status, cluster, database_name, token, role, password, scram_salt) \
                 VALUES ('{id}', '{id}', 'database', 'active', 'main', 'bench', '{token}', '{id}', '\\x{}', '\\x{}');\
                 INSERT INTO pgusher.api_key (id, tenant, verifier) VALUES ('{id}', '{id}', '{}');",
                hex::encode(&password),
                hex::encode(&credential.salt),
                credential.verifier()
            )?;
        }
        registry.query(&format!("BEGIN; {sql} COMMIT"))?;
    }
    Ok(())
}

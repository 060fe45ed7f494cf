//! Tenants of the variant `shared`: what it costs to hand a slot over, and ten thousand tenants over
//! twenty server connections. PgBouncer has nothing to compare it with.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::args::Case;
use crate::credential::Credential;
use crate::figure::Sample;
use crate::postgres::free_port;
use crate::process::{self, Ending, Process, pause};
use crate::procfs::{Cpu, of_children, resident_bytes};
use crate::proxy::Kind;
use crate::report::Report;
use crate::stage::Stage;
use crate::wire::{Client, Login};
use crate::{pgusher, stats};

/// Server connections that all tenants share: pgusher's own default.
const SLOTS: usize = 20;
/// Tenants that take turns: each finds that its slot went to another.
const TURNS: usize = 2 * SLOTS;
/// Clients that log in or query at the same time.
const THREADS: usize = 16;
/// From the start of the process to its first answer.
const START_LIMIT: Duration = Duration::from_secs(30);

const QUERY: &str = "SELECT secret FROM accounts WHERE id = 1";

/// A table as those of the tier are, with one row for each tenant.
const TABLE: &str = "
    CREATE TABLE data.accounts (tenant_id text NOT NULL DEFAULT ctl.tenant(), id bigint NOT NULL, secret text,
        PRIMARY KEY (tenant_id, id));
    ALTER TABLE data.accounts OWNER TO pgusher_data;
    ALTER TABLE data.accounts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY,
        ALTER tenant_id SET STATISTICS 0, ALTER id SET STATISTICS 0, ALTER secret SET STATISTICS 0;
    CREATE POLICY tenant ON data.accounts TO PUBLIC
        USING (tenant_id = (SELECT ctl.tenant())) WITH CHECK (tenant_id = (SELECT ctl.tenant()));
    GRANT SELECT (tenant_id, id, secret) ON data.accounts TO pgusher_view;
    CREATE VIEW app.accounts WITH (security_barrier) AS SELECT id, secret, tenant_id FROM data.accounts;
    ALTER VIEW app.accounts OWNER TO pgusher_view;
    GRANT SELECT ON app.accounts TO PUBLIC";

/// The token of tenant number `n`, as SQL.
const TOKEN: &str = "lpad(translate(n::text, '0123456789', 'abcdefghij'), 20, 'q')";

/// A pgusher with a registry that knows so many tenants.
struct Office {
    address: SocketAddr,
    process: Process,
    credential: Credential,
}

/// CPU of the proxy and of PostgreSQL up to now.
struct Cpus(Cpu, Duration);

pub(super) fn run(stage: &Stage, report: &mut Report) {
    if !stage.args.proxies.contains(&Kind::Pgusher) {
        return;
    }
    let office = match Office::open(stage, stage.sizes.tenants) {
        Ok(office) => office,
        Err(error) => return report.fail("Slots, start", &error),
    };
    for _ in 0..stage.sizes.slow_rounds {
        match hand_over(&office, stage) {
            Ok(samples) => report.add(Case::Slots, Kind::Pgusher, samples),
            Err(error) => report.fail("Slots, hand-over", &error),
        }
    }
    // One round: a second one would begin with what the first has left.
    match crowd(&office, stage) {
        Ok(samples) => report.add(Case::Slots, Kind::Pgusher, samples),
        Err(error) => report.fail("Slots, many tenants", &error),
    }
}

impl Office {
    fn open(stage: &Stage, tenants: usize) -> Result<Self> {
        let folder = stage.folder_for("slots")?;
        let credential = Credential::new("pgu_bench_4DtQ8w2Zk7VnXrGmYpLs");
        Client::login(&stage.postgres.admin("postgres"))?.query("CREATE DATABASE registry")?;
        let (port, server_port) = (free_port()?, stage.postgres.port());
        let config = format!(
            "[proxy]\nlisten = \"127.0.0.1:{port}\"\nworkers = 2\nmax_client_connections = 12000\n\
             log_level = \"warn\"\n[registry]\nurl = \"postgres://postgres@127.0.0.1:{server_port}/registry\"\n\
             [secrets]\nmaster_key_file = \"master.key\"\n"
        );
        fs::write(folder.join("proxy.toml"), config)?;
        let pgusher = |arguments: &[&str]| {
            let mut command = Command::new(pgusher::binary(&stage.args));
            process::output(command.args(arguments).current_dir(&folder))
        };
        let key = pgusher(&["secrets", "key", "--number", "1"])?;
        fs::write(folder.join("master.key"), key)?;
        let primary = format!("postgres://127.0.0.1:{server_port}");
        let add = ["cluster", "add", "main", "--primary", &primary];
        pgusher(&[&add[..], &["--admin-role", "postgres"]].concat())?;
        let create = ["tenant", "create", "seed", "--tier", "row"];
        pgusher(&[&create[..], &["--variant", "shared"]].concat())?;
        furnish(stage, &credential, tenants)?;
        let mut command = process::command(pgusher::binary(&stage.args));
        command.arg("serve").current_dir(&folder);
        let process = Process::start("pgusher", command, Ending::Kill, folder.join("log"))?;
        let mut office = Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            process,
            credential,
        };
        let login = office.login(1);
        let first = || ask(&mut Client::login(&login)?, 1);
        process::retry_while(START_LIMIT, || office.process.check_alive(), first)?;
        Ok(office)
    }

    fn login(&self, number: usize) -> Login {
        Login {
            address: self.address,
            user: format!("slot{number}"),
            database: format!("slot{number}"),
            credential: self.credential.clone(),
            tls: false,
        }
    }

    fn cpus(&self, stage: &Stage) -> Result<Cpus> {
        let proxy = Cpu::of(self.process.pid())?;
        Ok(Cpus(proxy, of_children(stage.postgres.pid())?))
    }

    fn clients(&self, numbers: impl Iterator<Item = usize>) -> Result<Vec<(usize, Client)>> {
        let client = |number| Ok((number, Client::login(&self.login(number))?));
        numbers.map(client).collect()
    }
}

/// Gives the registry its tenants, which all have one key, and each tenant its row.
fn furnish(stage: &Stage, credential: &Credential, tenants: usize) -> Result<()> {
    let salt = STANDARD.encode(&credential.salt);
    let verifier = credential.verifier();
    let copy = format!(
        "INSERT INTO pgusher.tenant (id, name, tier, variant, status, cluster, database_name, token, role, scram_salt)
         SELECT 'slot' || n, 'slot' || n, 'row', 'shared', 'active', cluster, database_name, {TOKEN}, 't_' || {TOKEN},
             decode('{salt}', 'base64')
         FROM pgusher.tenant, generate_series(1, {tenants}) AS n WHERE id = 'seed';
         INSERT INTO pgusher.api_key (id, tenant, verifier)
         SELECT 'key' || n, 'slot' || n, '{verifier}' FROM generate_series(1, {tenants}) AS n;
         ANALYZE pgusher.tenant, pgusher.api_key"
    );
    Client::login(&stage.postgres.admin("registry"))?.query(&copy)?;
    let mut rows = String::from(TABLE);
    write!(
        rows,
        "; INSERT INTO data.accounts SELECT {TOKEN}, 1, 'of slot' || n FROM generate_series(1, {tenants}) AS n"
    )?;
    Client::login(&stage.postgres.admin("pgusher_rows"))?.query(&rows)?;
    Ok(())
}

/// Asks for the tenant's row: anything else fails the run.
fn ask(client: &mut Client, number: usize) -> Result<()> {
    let row = client.first_row(QUERY)?;
    let expected = format!("of slot{number}");
    // One column: its count, its length, its text.
    if row.get(6..) != Some(expected.as_bytes()) {
        bail!("tenant {number} got {:?}", String::from_utf8_lossy(&row));
    }
    Ok(())
}

/// What one query costs more when its slot has to be handed over first, or made.
fn hand_over(office: &Office, stage: &Stage) -> Result<Vec<Sample>> {
    let rounds = if stage.args.quick { 10 } else { 100 };
    let mut samples = Vec::new();
    let mut clients = office.clients(1..=TURNS)?;
    let mut measure = |label: &str, work: &mut dyn FnMut() -> Result<Duration>, count: usize| {
        let before = office.cpus(stage)?;
        let elapsed = work().with_context(|| label.to_owned())?;
        let after = office.cpus(stage)?;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
        let figures = [
            ("wall", elapsed),
            ("CPU of the proxy", after.0.since(&before.0).total),
            ("CPU of PostgreSQL", after.1.saturating_sub(before.1)),
        ];
        let sample =
            |(name, time)| Sample::new(format!("{label}: {name} per query"), "µs", each(time));
        samples.extend(figures.map(sample));
        anyhow::Ok(())
    };
    // All slots are made.
    for (number, client) in &mut clients {
        ask(client, *number)?;
    }
    let all = rounds * TURNS;
    let same = &mut || {
        let from = Instant::now();
        let (number, client) = clients.first_mut().context("no client")?;
        for _ in 0..all {
            ask(client, *number)?;
        }
        Ok(from.elapsed())
    };
    measure("the same tenant again", same, all)?;
    let other = &mut || {
        let from = Instant::now();
        for _ in 0..rounds {
            for (number, client) in &mut clients {
                ask(client, *number)?;
            }
        }
        Ok(from.elapsed())
    };
    measure("another tenant each time", other, all)?;
    let mut admin = Client::login(&stage.postgres.admin("postgres"))?;
    let (times, mut lost) = ((rounds / 5).max(1), 0_u32);
    let new = &mut || {
        let mut asked = Duration::ZERO;
        for _ in 0..times {
            end_slots(&mut admin)?;
            let from = Instant::now();
            for (number, client) in clients.iter_mut().take(SLOTS) {
                if ask(client, *number).is_err() {
                    // It was given one that has ended.
                    lost += 1;
                    *client = Client::login(&office.login(*number))?;
                    ask(client, *number)?;
                }
            }
            asked += from.elapsed();
        }
        Ok(asked)
    };
    measure("a new slot each time", new, times * SLOTS)?;
    let share = f64::from(lost) / (times * SLOTS) as f64;
    let name = "a new slot each time: sessions lost with the old one";
    samples.push(Sample::new(name, "", share));
    for (_, client) in clients {
        client.terminate()?;
    }
    Ok(samples)
}

/// Ends all slots; the next query of each tenant makes one.
fn end_slots(admin: &mut Client) -> Result<()> {
    const SLOT: &str = "FROM pg_stat_activity WHERE usename ~ '^[sq]_[0-9]+$'";
    admin.query(&format!("SELECT pg_terminate_backend(pid) {SLOT}"))?;
    process::retry(Duration::from_secs(10), || {
        let left = admin.first_row(&format!("SELECT count(*) {SLOT}"))?;
        match left.get(6..) {
            Some(b"0") => Ok(()),
            _ => bail!("slots are still there"),
        }
    })?;
    // The proxy is to hear of it before it lends one.
    pause(Duration::from_millis(200));
    Ok(())
}

/// All tenants at once, each with one client.
fn crowd(office: &Office, stage: &Stage) -> Result<Vec<Sample>> {
    let count = stage.sizes.tenants;
    let pid = office.process.pid();
    let empty = resident_bytes(pid)?;
    let kilobytes_each = || -> Result<f64> {
        let grown = resident_bytes(pid)?.saturating_sub(empty);
        Ok(grown as f64 / 1024.0 / count as f64)
    };
    let label = format!("{count} tenants over {SLOTS} slots");
    let mut samples = Vec::new();
    let mut note = |name: &str, unit, value| {
        samples.push(Sample::new(format!("{label}: {name}"), unit, value));
    };
    let rate = |since: Instant| count as f64 / since.elapsed().as_secs_f64();
    let from = Instant::now();
    let mut crowd = everybody(office, count)?;
    note("first logins", "/s", rate(from));
    note("memory per tenant, logged in", "KB", kilobytes_each()?);
    let from = Instant::now();
    each(&mut crowd, |own| {
        let mut own = own.iter_mut();
        own.try_for_each(|(number, client)| ask(client, *number))
    })?;
    note("first queries", "/s", rate(from));
    let memory = kilobytes_each()?;
    note("memory per tenant after a query each", "KB", memory);
    let (before, from) = (office.cpus(stage)?, Instant::now());
    let micros = at_random(&mut crowd, from + stage.sizes.window * 2)?;
    let (elapsed, after) = (from.elapsed(), office.cpus(stage)?);
    let asked = micros.len() as f64;
    let cpu = |time: Duration| time.as_secs_f64() * 1e6 / asked;
    note("throughput", "tps", asked / elapsed.as_secs_f64());
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let at = stats::percentile(&micros, share).context("no query")?;
        note(&format!("latency {name}"), "ms", f64::from(at) / 1000.0);
    }
    let proxy = after.0.since(&before.0).total;
    note("CPU of the proxy per query", "µs", cpu(proxy));
    let postgres = after.1.saturating_sub(before.1);
    note("CPU of PostgreSQL per query", "µs", cpu(postgres));
    note("memory per tenant at the end", "KB", kilobytes_each()?);
    Ok(samples)
}

/// A client of each tenant, in as many parts as there are threads.
fn everybody(office: &Office, count: usize) -> Result<Vec<Vec<(usize, Client)>>> {
    let numbers: Vec<usize> = (1..=count).collect();
    std::thread::scope(|scope| {
        let logins: Vec<_> = numbers
            .chunks(count.div_ceil(THREADS).max(1))
            .map(|own| scope.spawn(move || office.clients(own.iter().copied())))
            .collect();
        let joined = logins
            .into_iter()
            .map(|one| one.join().expect("a login panicked"));
        joined.collect()
    })
}

/// Any of them asks, until then; the latencies in microseconds, in order.
fn at_random(crowd: &mut [Vec<(usize, Client)>], until: Instant) -> Result<Vec<u32>> {
    let of_each = each(crowd, |own| {
        let mut micros = Vec::new();
        while Instant::now() < until {
            let at = rand::random_range(0..own.len());
            let (number, client) = own.get_mut(at).context("no client")?;
            let begin = Instant::now();
            ask(client, *number)?;
            micros.push(u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
        Ok(micros)
    })?;
    let mut micros = of_each.concat();
    micros.sort_unstable();
    Ok(micros)
}

/// Does the same with all parts at once. Any error, a row of another's among them, fails the run.
fn each<T: Send>(
    crowd: &mut [Vec<(usize, Client)>],
    work: impl Fn(&mut [(usize, Client)]) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = crowd
            .iter_mut()
            .map(|own| scope.spawn(move || work(own)))
            .collect();
        let joined = threads
            .into_iter()
            .map(|one| one.join().expect("a query panicked"));
        joined.collect()
    })
}

//! Logins: how many per second, and what one costs the proxy.
//!
//! The client is this program rather than `pgbench -C`: libpq derives the key anew in each login,
//! which takes the client longer than everything else together.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::args::Case;
use crate::credential::{Certificate, Credential, KeyType};
use crate::figure::Sample;
use crate::lineup::Lineup;
use crate::procfs::Cpu;
use crate::proxy::{Proxy, Setup};
use crate::report::Report;
use crate::stage::Stage;
use crate::wire::{Client, Login};

/// Clients that log in at the same time.
const THREADS: usize = 4;

pub(super) fn run(stage: &Stage, report: &mut Report) {
    run_setup(stage, report, "SCRAM", &Setup::plain(), stage.sizes.logins);
    for (key_type, name) in [(KeyType::P256, "P-256"), (KeyType::Rsa2048, "RSA-2048")] {
        let label = format!("TLS ({name}) and SCRAM");
        let made = stage
            .folder_for("tls")
            .and_then(|folder| Certificate::create(&folder, key_type));
        match made {
            Ok(made) => {
                let setup = Setup {
                    certificate: Some(made),
                    ..Setup::plain()
                };
                run_setup(stage, report, &label, &setup, stage.sizes.tls_logins);
            }
            Err(error) => report.fail(&label, &error),
        }
    }
}

fn run_setup(stage: &Stage, report: &mut Report, label: &str, setup: &Setup, count: usize) {
    let mut lineup = Lineup::start(Case::Login, setup, stage, report).without_direct();
    for _ in 0..stage.sizes.rounds {
        lineup.each(report, label, |proxy| measure(proxy, label, count));
    }
    lineup.each(report, label, |proxy| {
        refuses_a_wrong_key(proxy).map(|()| Vec::new())
    });
}

/// A proxy that lets everyone in is quick, and out of the competition.
fn refuses_a_wrong_key(proxy: &Proxy) -> Result<()> {
    let login = Login {
        credential: Credential::new("not the key"),
        ..proxy.login("bench")
    };
    if Client::login(&login).is_ok() {
        bail!("a wrong key was let in");
    }
    Ok(())
}

fn measure(proxy: &Proxy, label: &str, count: usize) -> Result<Vec<Sample>> {
    let login = proxy.login("bench");
    let each = count / THREADS;
    let before = Cpu::of(proxy.pid()?)?;
    let begin = Instant::now();
    let succeeded = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| log_in_and_out(&login, each)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a login thread panicked"))
            .sum::<Result<usize>>()
    })?;
    let elapsed = begin.elapsed();
    let spent = Cpu::of(proxy.pid()?)?.since(&before);
    if succeeded != each * THREADS {
        bail!("{succeeded} of {} logins succeeded", each * THREADS);
    }
    let milliseconds = spent.total.as_secs_f64() * 1e3 / succeeded as f64;
    Ok(vec![
        Sample::new(format!("{label}: CPU per login"), "ms", milliseconds),
        Sample::new(
            format!("{label}: rate"),
            "/s",
            succeeded as f64 / elapsed.as_secs_f64(),
        ),
    ])
}

fn log_in_and_out(login: &Login, count: usize) -> Result<usize> {
    for _ in 0..count {
        Client::login(login)?.terminate()?;
    }
    Ok(count)
}

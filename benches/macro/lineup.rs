//! The proxies of one case, side by side, measured in turns.

use std::time::Duration;

use anyhow::Result;

use crate::args::Case;
use crate::figure::Sample;
use crate::process;
use crate::proxy::{Proxy, Setup};
use crate::report::Report;
use crate::stage::Stage;
use crate::wire::Client;

/// From the start of a process to its first answer, with few tenants.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The proxies that still take part.
pub(crate) struct Lineup {
    case: Case,
    proxies: Vec<Proxy>,
}

impl Lineup {
    /// Starts fresh ones; who doesn't answer a query is noted and left out.
    pub(crate) fn start(case: Case, setup: &Setup, stage: &Stage, report: &mut Report) -> Self {
        let mut lineup = Self {
            case,
            proxies: Vec::new(),
        };
        for kind in &stage.args.proxies {
            let started = Proxy::launch(*kind, setup, stage).and_then(|mut proxy| {
                first_query(&mut proxy, setup.worker(), START_LIMIT)?;
                Ok(proxy)
            });
            match started {
                Ok(proxy) => lineup.proxies.push(proxy),
                Err(error) => report.fail(&format!("{case:?}, start of {}", kind.name()), &error),
            }
        }
        lineup
    }

    /// Only those that are a process of their own.
    pub(crate) fn without_direct(mut self) -> Self {
        self.proxies.retain(|proxy| proxy.pid().is_ok());
        self
    }

    /// Measures each in turn, the next time in the opposite order. Who fails is noted and leaves.
    pub(crate) fn each(
        &mut self,
        report: &mut Report,
        what: &str,
        mut measure: impl FnMut(&Proxy) -> Result<Vec<Sample>>,
    ) {
        let case = self.case;
        self.proxies.retain_mut(|proxy| {
            let measured = measure(proxy).and_then(|samples| proxy.check_alive().map(|()| samples));
            match measured {
                Ok(samples) => report.add(case, proxy.kind, samples),
                Err(error) => {
                    // A proxy that died explains more than the client that noticed.
                    let error = proxy.check_alive().err().unwrap_or(error);
                    report.fail(&format!("{case:?}, {what}, {}", proxy.kind.name()), &error);
                    return false;
                }
            }
            true
        });
        self.proxies.reverse();
    }
}

/// Waits for the first answered query of a proxy that was just launched.
pub(crate) fn first_query(proxy: &mut Proxy, tenant: &str, limit: Duration) -> Result<()> {
    let login = proxy.login(tenant);
    let attempt = || {
        let mut client = Client::login(&login)?;
        client.query("SELECT 1")?;
        client.terminate()
    };
    process::retry_while(limit, || proxy.check_alive(), attempt)
}

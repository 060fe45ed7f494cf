//! What limits cost where nobody reaches them: CPU per transaction with all of them on, against off.

use anyhow::Result;

use crate::args::Case;
use crate::figure::Sample;
use crate::lineup::first_query;
use crate::proxy::{Kind, Proxy, Setup};
use crate::report::Report;
use crate::stage::Stage;

const TENANT: &str = "max_concurrent_queries = 10000\ntransactions_per_second = 1000000\n\
                      transactions_per_hour = 1000000000\nbytes_per_second = 1000000000000\n\
                      logins_per_second = 1000000\n";

pub(super) fn run(stage: &Stage, report: &mut Report) {
    if !stage.args.proxies.contains(&Kind::Pgusher) {
        return;
    }
    let (off, on) = (
        Setup::plain().unlimited(),
        Setup {
            cluster_lines: format!("{}\n", stage.args.cluster),
            ..Setup::plain().tell("bench", TENANT)
        },
    );
    if let Err(error) = compare([&off, &on], stage, report) {
        report.fail("Limits", &error);
    }
}

fn compare(setups: [&Setup; 2], stage: &Stage, report: &mut Report) -> Result<()> {
    let mut proxies = Vec::new();
    for setup in setups {
        let mut proxy = Proxy::launch(Kind::Pgusher, setup, stage)?;
        first_query(&mut proxy, "bench", std::time::Duration::from_secs(20))?;
        proxies.push(proxy);
    }
    for round in 0..stage.sizes.rounds * 2 {
        let mut costs = [0.0; 2];
        // The one that is first this time is the second the next time.
        for place in [round % 2, 1 - round % 2] {
            if let (Some(cost), Some(proxy)) = (costs.get_mut(place), proxies.get(place)) {
                *cost = super::tenants::cost(proxy, stage)?;
            }
        }
        let [off, on] = costs;
        let samples = vec![
            Sample::new("all limits off: CPU per 100k transactions", "s", off * 1e5),
            Sample::new("all limits on: CPU per 100k transactions", "s", on * 1e5),
            Sample::new("all limits on, against off", "×", on / off),
        ];
        report.add(Case::Limits, Kind::Pgusher, samples);
    }
    Ok(())
}

//! Which server answers, by weight.

use crate::{
    Args,
    ground::{committed, fill, point_selects, settle, tenant},
    harness::Fleet,
    report::Report,
};

/// A name, weights of the replicas, and the primary's.
const CASES: [(&str, &[u32], u32); 4] = [
    ("one replica", &[1], 0),
    ("two replicas 1:1", &[1, 1], 0),
    ("two replicas 3:1", &[3, 1], 0),
    ("two replicas 1:1, primary 1", &[1, 1], 1),
];

pub fn run(args: &Args, report: &mut Report) {
    let fleet = Fleet::start(2);
    let seconds = if args.quick { 2 } else { 6 };
    for (name, weights, primary) in CASES {
        let url = |(at, weight): (usize, &u32)| {
            format!("{}?weight={weight}", fleet.endpoint(at + 1).url()).into()
        };
        let replicas: Vec<toml::Value> = weights.iter().enumerate().map(url).collect();
        let proxy = fleet
            .proxy([tenant(&fleet, "acme")])
            .cluster("replicas", replicas)
            .cluster("primary_weight", primary)
            .cluster("replica_slow_start", "0s")
            .start();
        fill(&proxy, "acme");
        fleet.catch_up();
        settle(&proxy, "acme");
        // PostgreSQL counts what a session did when it has been idle for a second.
        let before = committed(&fleet);
        point_selects(&proxy, "acme", seconds);
        drop(proxy);
        crate::ground::pause(std::time::Duration::from_millis(1500));
        let after = committed(&fleet);
        let counts: Vec<_> = after
            .iter()
            .zip(&before)
            .map(|(after, before)| after - before)
            .collect();
        let all: f64 = counts.iter().sum();
        let shares: Vec<_> = counts
            .iter()
            .map(|count| format!("{:.1} %", 100.0 * count / all))
            .collect();
        let name = format!("pgbench -S, {name}: primary, replicas");
        let sum: u32 = weights.iter().sum::<u32>() + primary;
        let expected = std::iter::once(&primary).chain(weights);
        let expected: Vec<_> = expected
            .map(|weight| format!("{} %", 100 * weight / sum))
            .collect();
        report.row(&name, shares.join(", "), &expected.join(", "));
    }
}

//! CPU of the proxy per transaction, with reads split and without, in turns.

use crate::{
    Args,
    ground::{fill, point_selects, settle, tenant, transactions},
    harness::{Fleet, Proxy},
    procfs::Cpu,
    report::{Report, median},
};

/// Microseconds of CPU per transaction.
fn cpu(proxy: &Proxy, seconds: u32) -> f64 {
    let before = Cpu::of(proxy.pid()).unwrap();
    let run = point_selects(proxy, "acme", seconds);
    let spent = Cpu::of(proxy.pid()).unwrap().since(&before).total;
    spent.as_secs_f64() * 1e6 / transactions(&run)
}

pub fn run(args: &Args, report: &mut Report) {
    let fleet = Fleet::start(2);
    let seconds = if args.quick { 2 } else { 6 };
    let split = fleet.proxy([tenant(&fleet, "acme")]).start();
    let whole = tenant(&fleet, "acme").set("read_splitting", false);
    let whole = fleet.proxy([whole]).start();
    for proxy in [&split, &whole] {
        fill(proxy, "acme");
    }
    fleet.catch_up();
    settle(&split, "acme");
    let (mut on, mut off, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..args.rounds {
        // The other one begins each time: drift then hits both.
        let (a, b) = if round % 2 == 0 {
            let a = cpu(&split, seconds);
            (a, cpu(&whole, seconds))
        } else {
            let b = cpu(&whole, seconds);
            (cpu(&split, seconds), b)
        };
        println!("round {round}: {a:.1} µs split, {b:.1} µs not");
        on.push(a);
        off.push(b);
        ratios.push(a / b);
    }
    let shown = format!("{:.1} µs, {:.1} µs", median(&mut on), median(&mut off));
    report.row(
        "CPU per transaction, pgbench -S prepared c16: split, not split",
        shown,
        "",
    );
    let name = "ratio of the two (median of rounds)";
    report.row(name, format!("{:.2}", median(&mut ratios)), "<= 1.15");
}

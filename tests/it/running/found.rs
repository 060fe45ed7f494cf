//! The number of statements that run is found.

use super::*;

/// Forty clients of a cluster that finds how many of their statements run.
fn adaptive(lines: &[(&str, u32)]) -> Stage {
    Stage::with(
        ["acme"],
        |tenant| tenant,
        |proxy| {
            let proxy = proxy.cluster("adaptive_running_statements", true);
            lines
                .iter()
                .fold(proxy, |proxy, (key, value)| proxy.cluster(key, *value))
        },
    )
}

impl Stage {
    fn limit(&self) -> f64 {
        self.figure("pgusher_running_statements_limit", "")
    }
}

#[test]
fn statements_that_wait_for_a_clock_are_soon_not_held_back() {
    let stage = adaptive(&[]);
    let flood = Flood::of(&stage, "acme", 40, || {
        Request::new().query("select pg_sleep(0.2)")
    });
    flood.goes_on(200);
    eventually("all of them run", || stage.limit() >= 40.0);
    flood.end();
    stage.is_at_rest();
}

#[test]
fn what_is_found_is_between_its_bounds() {
    let stage = adaptive(&[("max_running_statements", 3), ("min_running_statements", 3)]);
    let mut clients: Vec<_> = (0..20).map(|_| stage.client("acme")).collect();
    for client in &mut clients {
        client.send(&Request::new().query(RUN).query(RUN));
    }
    for client in &mut clients {
        for _ in 0..2 {
            assert_eq!(code(&client.until_ready()), "");
        }
    }
    let most = most_at_once(&mut clients[0]);
    assert!(most <= 3.0 + stage.counted("forgiven"), "{most}");
    assert!(stage.counted("waited") > 0.0);
    drop(clients);
    stage.is_at_rest();
}

#[test]
fn who_waits_too_long_is_told_where_the_limit_comes_from() {
    let stage = Stage::with(
        ["acme"],
        |tenant| tenant.set("query_wait_timeout", "700ms"),
        |proxy| {
            let proxy = proxy.cluster("adaptive_running_statements", true);
            let proxy = proxy.cluster("max_running_statements", 1);
            proxy.cluster("min_running_statements", 1)
        },
    );
    let mut waiter = stage.client("acme");
    let _lock = stage.lock();
    let _stuck = stage.stuck("acme");
    let refused = waiter.fails("select 1");
    let says = ["is reached", "1 (found by adaptive_running_statements)"];
    assert_says(&refused, "53300", &says);
}

#[test]
fn it_is_given_and_found_while_statements_run() {
    let mut stage = adaptive(&[]);
    let flood = Flood::of(&stage, "acme", 20, || {
        Request::new().query("select pg_sleep(0.01)")
    });
    let change = |stage: &mut Stage, key: &str, value: u32| {
        stage.proxy.reload(|file| file.set_cluster(key, value));
    };
    change(&mut stage, "max_running_statements", 4);
    eventually("at most four", || stage.limit() <= 4.0);
    stage
        .proxy
        .reload(|file| file.set_cluster("adaptive_running_statements", false));
    eventually("just four", || (stage.limit() - 4.0).abs() < 0.5);
    flood.goes_on(100);
    assert!((stage.limit() - 4.0).abs() < 0.5);
    change(&mut stage, "max_running_statements", 0);
    eventually("as many as come", || stage.limit() < 0.5);
    stage
        .proxy
        .reload(|file| file.set_cluster("adaptive_running_statements", true));
    eventually("it is found again", || stage.limit() >= 2.0);
    change(&mut stage, "min_running_statements", 30);
    eventually("at least thirty", || stage.limit() >= 30.0);
    flood.goes_on(100);
    flood.end();
    stage.is_at_rest();
}

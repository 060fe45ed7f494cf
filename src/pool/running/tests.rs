//! Places of statements, from hand to hand.

use super::{overstay::OVERSTAY, *};
use crate::{
    pool::Budget,
    tenant::{Limits, TenantId},
};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

const FOREVER: Duration = Duration::from_hours(1);

struct Server {
    budget: Arc<Budget>,
}

impl Server {
    fn with(limit: u32) -> Self {
        let budget = Arc::new(Budget::new(1000, 1));
        budget.running().set_limit(limit);
        Self { budget }
    }

    fn running(&self) -> &Arc<Running> {
        self.budget.running()
    }

    fn run(&self, tenant: &str) -> Run {
        let id = TenantId::new(tenant).unwrap();
        let account = self.budget.account(&id, &Limits::default());
        Run::new(&self.running().runner(&account))
    }

    /// One that runs.
    fn entered(&self, tenant: &str) -> Run {
        let run = self.run(tenant);
        assert!(run.try_enter(), "{tenant}");
        run
    }

    fn counts(&self) -> (u32, u32, usize) {
        let load = self.running().load();
        (load.running, load.excused, load.waiting)
    }

    fn look(&self, at: Instant) {
        self.running().look(at);
    }
}

type Wait = Pin<Box<dyn Future<Output = Result<Granted, Refused>>>>;

fn wait(run: &Run) -> Wait {
    assert!(!run.try_enter());
    Box::pin(run.wait(FOREVER))
}

/// Whether it was its turn.
fn enters(run: &Run, wait: &mut Wait) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    match wait.as_mut().poll(&mut cx) {
        Poll::Ready(granted) => {
            run.enter_granted(granted.unwrap());
            true
        }
        Poll::Pending => false,
    }
}

#[tokio::test]
async fn a_place_comes_back_once() {
    let server = Server::with(1);
    let one = server.entered("one");
    assert!(!server.run("two").try_enter());
    one.leave();
    one.leave();
    drop(one);
    assert_eq!(server.counts(), (0, 0, 0));
    drop(server.entered("two"));
    assert_eq!(server.counts(), (0, 0, 0));
}

#[tokio::test]
async fn who_is_within_a_transaction_enters_beyond_the_limit() {
    let server = Server::with(1);
    let _one = server.entered("one");
    let two = server.run("one");
    two.enter_now();
    assert_eq!(server.counts(), (2, 0, 0));
    two.leave();
    assert_eq!(server.counts(), (1, 0, 0));
}

#[tokio::test]
async fn a_place_that_is_left_goes_to_who_waits_and_to_nobody_else() {
    let server = Server::with(1);
    let one = server.entered("one");
    let two = server.run("one");
    let mut waiting = wait(&two);
    assert!(!enters(&two, &mut waiting));
    one.leave();
    assert!(!one.try_enter(), "nobody overtakes");
    assert!(enters(&two, &mut waiting));
    assert_eq!(server.counts(), (1, 0, 0));
    two.leave();
    assert!(one.try_enter());
}

#[tokio::test]
async fn who_leaves_the_queue_gives_its_place_on() {
    let server = Server::with(1);
    let one = server.entered("one");
    let (two, three, four) = (server.run("one"), server.run("one"), server.run("one"));
    let (left, granted, mut stays) = (wait(&two), wait(&three), wait(&four));
    drop(left);
    one.leave();
    // It is its place, and it never asked for it.
    drop(granted);
    assert!(enters(&four, &mut stays));
    drop(four);
    assert_eq!(server.counts(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_wait_has_an_end() {
    let server = Server::with(1);
    let _one = server.entered("one");
    let refused = server.run("one").wait(Duration::from_secs(1)).await;
    assert_eq!(refused.unwrap_err(), Refused);
    assert_eq!(server.counts(), (1, 0, 0));
}

#[tokio::test]
async fn tenants_share_places_though_one_asks_first() {
    let server = Server::with(4);
    let mut ones: Vec<_> = (0..4).map(|_| server.entered("one")).collect();
    let more = server.run("one");
    let mut waits = wait(&more);
    // It has less than its share: it does not wait, and the other has one less from now on.
    let two = server.run("two");
    assert!(enters(&two, &mut wait(&two)));
    assert_eq!(server.counts(), (4, 1, 1));
    two.leave();
    assert!(!enters(&more, &mut waits), "it has its four");
    let two = server.run("two");
    assert!(enters(&two, &mut wait(&two)), "that place is the other's");
    drop(ones.pop());
    drop(ones.pop());
    assert!(!enters(&more, &mut waits) || server.counts().0 <= 4);
    drop((ones, two));
    assert!(server.counts().2 == 0 || enters(&more, &mut waits));
    drop((more, waits));
    assert_eq!(server.counts(), (0, 0, 0));
}

#[tokio::test]
async fn no_more_than_twice_as_many_run() {
    let server = Server::with(4);
    let mut all: Vec<_> = (0..4).map(|_| server.entered("one")).collect();
    let mut waits = Vec::new();
    for tenant in ["two", "three", "four", "five", "six", "seven", "eight"] {
        for _ in 0..4 {
            let run = server.run(tenant);
            let mut waiting = wait(&run);
            if enters(&run, &mut waiting) {
                all.push(run);
            } else {
                waits.push((run, waiting));
            }
            server.look(Instant::now());
        }
    }
    let (running, excused, _) = server.counts();
    assert_eq!(running, 4);
    assert!(excused <= 4, "{excused}");
    drop((all, waits));
    assert_eq!(server.counts(), (0, 0, 0));
}

#[tokio::test]
async fn what_stays_long_does_not_stop_others() {
    let server = Server::with(2);
    let _stay = [server.entered("one"), server.entered("two")];
    let three = server.run("three");
    let mut waits = wait(&three);
    let now = Instant::now();
    server.look(now);
    server.look(now + OVERSTAY / 2);
    assert!(!enters(&three, &mut waits), "each has its share");
    server.look(now + OVERSTAY);
    assert!(enters(&three, &mut waits));
    assert_eq!(server.counts(), (2, 1, 0));
}

#[tokio::test]
async fn what_stays_long_does_not_stop_its_own_tenant_for_ever() {
    let server = Server::with(2);
    let stay = [server.entered("one"), server.entered("one")];
    let more = [server.run("one"), server.run("one")];
    let [mut first, mut second] = [wait(&more[0]), wait(&more[1])];
    let now = Instant::now();
    server.look(now);
    server.look(now + OVERSTAY);
    assert!(enters(&more[0], &mut first));
    server.look(now + OVERSTAY);
    assert!(!enters(&more[1], &mut second), "one a second");
    server.look(now + 2 * OVERSTAY);
    assert!(enters(&more[1], &mut second));
    assert_eq!(server.counts(), (2, 2, 0));
    drop((stay, more));
    assert_eq!(server.counts(), (0, 0, 0));
}

#[tokio::test]
async fn what_waits_for_its_client_does_not_run() {
    let server = Server::with(1);
    let slow = server.entered("one");
    let next = server.run("one");
    let mut waits = wait(&next);
    let now = Instant::now();
    slow.note_client(true);
    server.look(now);
    slow.note_client(false);
    slow.note_client(true);
    server.look(now + OVERSTAY / 2);
    assert!(!enters(&next, &mut waits), "it went on meanwhile");
    server.look(now + OVERSTAY / 2 + Duration::from_millis(20));
    assert!(enters(&next, &mut waits));
    assert_eq!(server.counts(), (1, 1, 0));
    slow.note_client(false);
    assert_eq!(server.counts(), (2, 0, 0), "it runs again");
    drop(slow);
    assert_eq!(server.counts(), (1, 0, 0));
}

#[tokio::test]
async fn a_server_that_is_another_sessions_is_not_left_twice() {
    let server = Server::with(2);
    let account = server
        .budget
        .account(&TenantId::new("one").unwrap(), &Limits::default());
    let runner = server.running().runner(&account);
    let before = Run::new(&runner);
    assert!(before.try_enter());
    let after = Run::new(&runner);
    assert!(after.try_enter());
    assert_eq!(server.counts(), (1, 0, 0));
    drop(before);
    assert_eq!(server.counts(), (1, 0, 0));
    drop(after);
    assert_eq!(server.counts(), (0, 0, 0));
}

#[tokio::test]
async fn a_limit_changes_while_statements_run() {
    let server = Server::with(0);
    let free = server.entered("one");
    server.running().set_limit(1);
    let counted = server.entered("one");
    let waiter = server.run("one");
    let mut waits = wait(&waiter);
    assert!(!enters(&waiter, &mut waits));
    server.running().set_limit(2);
    assert!(enters(&waiter, &mut waits));
    server.running().set_limit(1);
    counted.leave();
    assert!(!counted.try_enter());
    let mut waits = Box::pin(counted.wait(FOREVER)) as Wait;
    assert!(!enters(&counted, &mut waits));
    server.running().set_limit(0);
    assert!(enters(&counted, &mut waits));
    drop((free, counted, waiter));
    assert_eq!(server.counts(), (0, 0, 0));
}

#[tokio::test]
async fn nothing_leaks_whatever_happens() {
    let server = Server::with(3);
    let mut seed = 1_u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let tenants = ["one", "two", "three", "four"];
    let mut runs = Vec::new();
    let mut waits: Vec<(Run, Wait)> = Vec::new();
    let mut now = Instant::now();
    for _ in 0..20_000 {
        // Else what is polled is never ready any more.
        tokio::task::yield_now().await;
        match random(8) {
            0 | 1 => {
                let run = server.run(tenants[random(4)]);
                if run.try_enter() {
                    runs.push(run);
                } else {
                    let waiting = Box::pin(run.wait(FOREVER)) as Wait;
                    waits.push((run, waiting));
                }
            }
            2 => {
                let run = server.run(tenants[random(4)]);
                run.enter_now();
                runs.push(run);
            }
            3 | 4 if !runs.is_empty() => drop(runs.swap_remove(random(runs.len()))),
            5 if !waits.is_empty() => drop(waits.swap_remove(random(waits.len()))),
            6 if !runs.is_empty() => runs[random(runs.len())].note_client(random(2) == 0),
            _ => {
                now += Duration::from_millis(300);
                server.look(now);
            }
        }
        let mut at = 0;
        while at < waits.len() {
            let (run, waiting) = &mut waits[at];
            if enters(run, waiting) {
                runs.push(waits.swap_remove(at).0);
            } else {
                at += 1;
            }
        }
        let (running, excused, waiting) = server.counts();
        assert_eq!(running as usize + excused as usize, runs.len());
        assert_eq!(waiting, waits.len());
    }
    drop((runs, waits));
    assert_eq!(server.counts(), (0, 0, 0));
    assert!(!server.running().is_scarce());
}

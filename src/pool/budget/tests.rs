//! Places, from hand to hand.

use super::*;
use crate::tenant::Limits;
use std::sync::atomic::AtomicBool;

fn account(budget: &Arc<Budget>, tenant: &str) -> Arc<Account> {
    budget.account(&TenantId::new(tenant).unwrap(), &Limits::default())
}

fn promised(budget: &Arc<Budget>, tenant: &str, guaranteed_servers: u32) -> Arc<Account> {
    let limits = Limits {
        guaranteed_servers,
        ..Limits::default()
    };
    budget.account(&TenantId::new(tenant).unwrap(), &limits)
}

/// Waits for a place, as a client does; true when it has had one.
fn wait(budget: &Arc<Budget>, tenant: &str) -> (tokio::task::JoinHandle<()>, Arc<AtomicBool>) {
    let (budget, account) = (Arc::clone(budget), account(budget, tenant));
    let served = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&served);
    let task = tokio::spawn(async move {
        let granted = budget.take(&account, Source::NONE).await;
        told.store(granted.is_some(), SeqCst);
    });
    (task, served)
}

async fn until_waiting(budget: &Budget, count: usize) {
    while budget.waiting() != count {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_place_comes_back_when_it_is_dropped() {
    let budget = Arc::new(Budget::new(1, 1));
    let one = account(&budget, "one");
    let place = budget.try_take(&one);
    assert!(place.is_some() && budget.try_take(&one).is_none());
    drop(place);
    assert!(budget.try_take(&one).is_some());
    assert_eq!((budget.used(), one.held()), (0, 0));
    budget.resize(0);
    assert!(budget.try_take(&one).is_none());
}

#[tokio::test]
async fn a_place_that_is_free_again_goes_to_who_waits_and_to_nobody_else() {
    let budget = Arc::new(Budget::new(1, 1));
    let one = account(&budget, "one");
    let place = budget.try_take(&one);
    let (task, served) = wait(&budget, "two");
    until_waiting(&budget, 1).await;
    assert!(budget.is_scarce());
    drop(place);
    assert!(budget.try_take(&one).is_none(), "nobody overtakes");
    task.await.unwrap();
    assert!(served.load(SeqCst));
    assert_eq!(budget.used(), 0);
    assert!(!budget.is_scarce());
}

#[tokio::test]
async fn a_waiter_that_is_gone_gives_its_place_to_the_next() {
    let budget = Arc::new(Budget::new(1, 1));
    let place = budget.try_take(&account(&budget, "one"));
    let (gone, _) = wait(&budget, "two");
    until_waiting(&budget, 1).await;
    let (stays, served) = wait(&budget, "three");
    until_waiting(&budget, 2).await;
    // Granted, and gone before it knows.
    drop(place);
    gone.abort();
    stays.await.unwrap();
    assert!(served.load(SeqCst));
    drop(gone.await);
    assert_eq!((budget.used(), budget.waiting()), (0, 0));
}

#[tokio::test]
async fn who_is_sent_away_waits_no_more() {
    let budget = Arc::new(Budget::new(1, 1));
    let place = budget.try_take(&account(&budget, "one"));
    let (task, served) = wait(&budget, "two");
    until_waiting(&budget, 1).await;
    budget.expel(&account(&budget, "two"), Source::NONE);
    task.await.unwrap();
    assert!(!served.load(SeqCst) && !budget.is_scarce());
    drop(place);
}

#[tokio::test]
async fn a_server_goes_to_another_tenant_when_its_own_has_had_enough() {
    let budget = Arc::new(Budget::new(1, 1));
    let one = account(&budget, "one");
    let mut place = budget.try_take(&one).unwrap();
    let (task, served) = wait(&budget, "two");
    until_waiting(&budget, 1).await;
    // No idle server is left to be looked for.
    budget.reclaim();
    match budget.judge(&mut place, Source::NONE) {
        Verdict::Move(waiter) => drop(waiter.grant(Grant::Place(place))),
        _ => panic!("it stays with its tenant"),
    }
    task.await.unwrap();
    assert!(served.load(SeqCst));
    assert_eq!((budget.used(), one.held()), (0, 0));
}

#[tokio::test]
async fn nothing_is_scarce_any_more_when_the_last_that_waited_is_served() {
    let budget = Arc::new(Budget::new(1, 1));
    let one = account(&budget, "one");
    let mut place = budget.try_take(&one).unwrap();
    let (task, served) = wait(&budget, "one");
    until_waiting(&budget, 1).await;
    match budget.judge(&mut place, Source::NONE) {
        Verdict::Hand(waiter) => drop(waiter.grant(Grant::Place(place))),
        _ => panic!("nobody else waits"),
    }
    assert!(!budget.is_scarce());
    task.await.unwrap();
    assert!(served.load(SeqCst));
}

#[tokio::test]
async fn a_tenant_that_waits_does_not_keep_a_server_idle() {
    let budget = Arc::new(Budget::new(1, 1));
    let one = account(&budget, "one");
    let mut place = budget.try_take(&one).unwrap();
    let (other, _) = wait(&budget, "two");
    until_waiting(&budget, 1).await;
    let (own, _) = wait(&budget, "one");
    until_waiting(&budget, 2).await;
    // There may be idle ones that were not looked for yet.
    budget.ledger().is_exhausted = false;
    match budget.judge(&mut place, Source::NONE) {
        Verdict::Hand(waiter) | Verdict::Move(waiter) => {
            drop(waiter.grant(Grant::Place(place)));
        }
        Verdict::Keep | Verdict::Close => panic!("it stands idle while two wait"),
    }
    other.await.unwrap();
    own.await.unwrap();
    assert_eq!((budget.used(), budget.waiting()), (0, 0));
}

#[tokio::test]
async fn what_is_promised_is_kept_free_as_long_as_its_tenant_is_here() {
    let budget = Arc::new(Budget::new(4, 1));
    let quiet = promised(&budget, "quiet", 2);
    let flood = account(&budget, "flood");
    let floods: Vec<_> = (0..4).map_while(|_| budget.try_take(&flood)).collect();
    assert_eq!(floods.len(), 2);
    let own: Vec<_> = (0..3).map_while(|_| budget.try_take(&quiet)).collect();
    assert_eq!((own.len(), budget.used()), (2, 4));
    drop(own);
    assert!(budget.try_take(&flood).is_none(), "it may come back");
    let (task, served) = wait(&budget, "flood");
    until_waiting(&budget, 1).await;
    assert!(!served.load(SeqCst));
    assert!(
        budget.try_take(&quiet).is_none(),
        "somebody waits; but in turn:"
    );
    let granted = budget.take(&quiet, Source::NONE).await;
    assert!(matches!(granted, Some(Grant::Place(_))));
    drop((granted, quiet));
    // Who looks after idle servers sees it.
    task.await.unwrap();
    assert!(served.load(SeqCst));
    drop(floods);
    assert_eq!((budget.used(), budget.accounts.promised()), (0, (0, 0)));
}

#[tokio::test]
async fn what_is_promised_from_now_on_is_given_up_by_who_comes_back() {
    let budget = Arc::new(Budget::new(3, 1));
    let flood = account(&budget, "flood");
    let mut places: Vec<_> = (0..3).map_while(|_| budget.try_take(&flood)).collect();
    assert!(places.len() == 3 && !budget.is_scarce());
    let quiet = promised(&budget, "quiet", 2);
    assert!(budget.is_scarce());
    for _ in 0..2 {
        let mut place = places.pop().unwrap();
        assert!(matches!(
            budget.judge(&mut place, Source::NONE),
            Verdict::Close
        ));
    }
    let mut last = places.pop().unwrap();
    assert!(matches!(
        budget.judge(&mut last, Source::NONE),
        Verdict::Keep
    ));
    assert!(!budget.is_scarce());
    let own = [(); 2].map(|()| budget.try_take(&quiet));
    assert!(own.iter().all(Option::is_some));
    // More than there is leaves the others one.
    drop((own, last));
    let _greedy = promised(&budget, "greedy", 100);
    assert!(budget.try_take(&flood).is_some());
}

#[test]
fn weights_are_those_of_who_has_or_wants_a_place() {
    let budget = Arc::new(Budget::new(2, 1));
    let limits = |weight| Limits {
        weight,
        ..Limits::default()
    };
    let tenant = |name: &str| TenantId::new(name).unwrap();
    let heavy = budget.account(&tenant("heavy"), &limits(7));
    let idle = budget.account(&tenant("idle"), &limits(100));
    assert_eq!(budget.accounts.weights(), 0);
    let places = [budget.try_take(&heavy), budget.try_take(&heavy)];
    assert_eq!(budget.accounts.weights(), 7);
    idle.begins_to_wait();
    assert_eq!(budget.accounts.weights(), 107);
    assert_eq!(budget.share(&heavy), 0);
    budget.account(&tenant("heavy"), &limits(100));
    assert_eq!((budget.accounts.weights(), budget.share(&heavy)), (200, 1));
    idle.stops_waiting();
    drop(places);
    assert_eq!(budget.accounts.weights(), 0);
}

/// A pool with one server, which is idle.
struct Hoard(Arc<Account>, Mutex<Option<Place>>);

impl Spare for Hoard {
    fn oldest_idle(&self) -> Option<Duration> {
        self.1.lock().as_ref().map(|_| Duration::from_secs(1))
    }

    fn account(&self) -> Option<Arc<Account>> {
        Some(Arc::clone(&self.0))
    }

    fn close_oldest(&self) -> bool {
        self.1.lock().take().is_some()
    }
}

#[test]
fn of_ten_thousand_pools_those_with_servers_are_looked_at() {
    let budget = Arc::new(Budget::new(50, 1));
    let pools: Vec<_> = (0..10_000)
        .map(|n| {
            let account = account(&budget, &format!("t{n}"));
            let pool = Arc::new(Hoard(account, Mutex::default()));
            budget.join(&pool);
            pool
        })
        .collect();
    assert!(budget.accounts.pools().is_empty());
    for pool in pools.iter().step_by(200) {
        *pool.1.lock() = budget.try_take(&pool.0);
    }
    assert_eq!((budget.used(), budget.accounts.pools().len()), (50, 50));
    assert!(budget.reclaim_one());
    assert_eq!((budget.used(), budget.accounts.pools().len()), (49, 49));
}

#[test]
fn promises_that_fill_the_budget_leave_the_others_one_place() {
    let budget = Arc::new(Budget::new(10, 1));
    let [first, second] = ["first", "second"].map(|id| promised(&budget, id, 5));
    let other = account(&budget, "other");
    let place = budget.try_take(&other);
    assert!(place.is_some() && budget.try_take(&other).is_none());
    let firsts: Vec<_> = (0..5).map_while(|_| budget.try_take(&first)).collect();
    let seconds: Vec<_> = (0..5).map_while(|_| budget.try_take(&second)).collect();
    assert_eq!((firsts.len(), seconds.len()), (5, 4));
    assert!(!budget.has_room(&second));
    drop((place, firsts));
    assert!(budget.has_room(&other) && budget.try_take(&other).is_some());
}

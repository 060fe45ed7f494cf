//! The shared listener of a pool, with a real PostgreSQL behind it.

use crate::harness::{
    Client, Place, Postgres, eventually,
    place::{Login, ROLE_PASSWORD},
    wait::DEADLINE,
};
use pgusher::{
    notify::{
        Bounds, Channels, Dial, Event, Hears, Hub, HubError, Lender, Notification, Subscription,
        is_marker,
    },
    tenant::{
        Address, ClusterName, Limits, Login as Role, Pinning, Placement, PoolMode, Reads, Scope,
        Secret, Status, Tenant, TenantId, Tier, Timeouts, UpstreamTls,
    },
    upstream::{Endpoint, Settings, UpstreamError, dial},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

/// A hub, and how often it has dialled.
struct Stage {
    place: Place,
    hub: Hub,
    dials: Arc<AtomicU32>,
}

impl Stage {
    fn new() -> Self {
        Self::with(&Postgres::shared().database(), Bounds::default())
    }

    fn with(place: &Place, bounds: Bounds) -> Self {
        Self::hearing(place, bounds, Box::new(|_| true))
    }

    fn hearing(place: &Place, bounds: Bounds, hears: Hears) -> Self {
        let dials = Arc::new(AtomicU32::new(0));
        let hub = Hub::new(dialler(place, Arc::clone(&dials), 0), hears, bounds);
        Self {
            place: place.clone(),
            hub,
            dials,
        }
    }

    async fn listens(&self, names: &[&str]) -> Arc<Subscription> {
        let subscription = self.hub.subscribe();
        self.hub
            .set_channels(&subscription, &channels(names))
            .await
            .unwrap();
        subscription
    }

    /// The pids of the listener's connections.
    fn pids(&self) -> Vec<String> {
        let role = self.place.role();
        self.place.admin().values(&format!(
            "select pid from pg_stat_activity \
             where usename = '{role}' and application_name = 'pgusher listener'"
        ))
    }

    fn is_without_connection(&self) {
        eventually("the listener's connection is closed", || {
            self.pids().is_empty()
        });
    }

    fn kill(&self) {
        let [pid] = self.pids().try_into().expect("one listener");
        self.place
            .admin()
            .exec(&format!("select pg_terminate_backend({pid})"));
    }
}

/// Dials, after it has failed so many times.
fn dialler(place: &Place, dials: Arc<AtomicU32>, failures: u32) -> Dial {
    let endpoint = Arc::new(Endpoint {
        address: Address::Tcp {
            host: "127.0.0.1".into(),
            port: place.endpoint().port(),
        },
        tls: UpstreamTls::Disable,
        connector: None,
        connect_timeout: DEADLINE,
    });
    let tenant = tenant(place);
    Box::new(move || {
        let (endpoint, tenant) = (Arc::clone(&endpoint), Arc::clone(&tenant));
        let count = dials.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if count < failures {
                return Err(UpstreamError::Budget);
            }
            let own = (Scope::ReadWrite, &Settings::default());
            let (server, _) = dial(&endpoint, &tenant, own).await?;
            Ok(Box::new(server) as Box<dyn Lender>)
        })
    })
}

fn tenant(place: &Place) -> Arc<Tenant> {
    Arc::new(Tenant {
        id: TenantId::new("acme").unwrap(),
        status: Status::Active,
        placement: Placement {
            cluster: ClusterName::new("main").unwrap(),
            tier: Tier::Database,
            database: place.database_name().into(),
            schema: None,
            login: Role {
                role: place.role().into(),
                password: Some(Secret::new(ROLE_PASSWORD.into())),
            },
            read_only_login: None,
            slots: None,
        },
        pool_mode: PoolMode::Transaction,
        limits: Limits::default(),
        storage_used: None,
        terms: pgusher::tenant::Terms::default(),
        timeouts: Timeouts::default(),
        reads: Reads::default(),
        settings: Vec::new(),
        forced: Vec::new(),
        keys: Vec::new(),
        pinning: Pinning::Allow,
    })
}

fn channels(names: &[&str]) -> Channels {
    names.iter().map(|name| (*name).into()).collect()
}

async fn next(subscription: &Subscription) -> Event {
    let next = std::future::poll_fn(|cx| subscription.poll_next(cx));
    tokio::time::timeout(DEADLINE, next)
        .await
        .expect("an event")
}

/// Channel and payload of a notification.
fn said(event: &Event) -> (String, String) {
    let Event::Notification(message) = event else {
        panic!("not a notification: {event:?}");
    };
    assert_eq!(message[0], b'A');
    let notification = Notification::read(&message[5..]).expect("a whole notification");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(notification.channel), text(notification.payload))
}

/// Everything that is in the queue after a fence.
async fn heard(stage: &Stage, subscription: &Arc<Subscription>) -> Vec<String> {
    stage.hub.fence(subscription).await.unwrap();
    let events = std::iter::from_fn(|| subscription.try_next());
    events.map(|event| said(&event).1).collect()
}

fn notify(client: &mut Client, channel: &str, payloads: &[&str]) {
    for payload in payloads {
        client.exec(&format!("select pg_notify('{channel}', '{payload}')"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_hub_without_listeners_has_no_connection() {
    let stage = Stage::new();
    let subscription = stage.hub.subscribe();
    let set = stage
        .hub
        .set_channels(&subscription, &Channels::new())
        .await
        .unwrap();
    assert_eq!(set, None);
    stage.hub.fence(&subscription).await.unwrap();
    assert_eq!(stage.dials.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn all_who_listen_hear_the_same_in_the_same_order_over_one_connection() {
    let stage = Stage::new();
    let mut subscriptions = Vec::new();
    for _ in 0..50 {
        subscriptions.push(stage.listens(&["a", "b"]).await);
    }
    let other = stage.listens(&["c"]).await;
    let mut one = stage.place.direct().login();
    let mut two = stage.place.direct().login();
    for number in 0..10 {
        notify(&mut one, "a", &[&format!("a{number}")]);
        notify(&mut two, "b", &[&format!("b{number}")]);
    }
    let expected: Vec<_> = (0..10)
        .flat_map(|number| [format!("a{number}"), format!("b{number}")])
        .collect();
    for subscription in &subscriptions {
        assert_eq!(heard(&stage, subscription).await, expected);
    }
    assert_eq!(heard(&stage, &other).await, [""; 0]);
    assert_eq!(stage.dials.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_fence_waits_for_everything_that_was_committed_before_it() {
    let stage = Stage::new();
    let subscription = stage.listens(&["a"]).await;
    let mut client = stage.place.direct().login();
    for number in 0..50 {
        let payload = number.to_string();
        notify(&mut client, "a", &[&payload]);
        assert_eq!(heard(&stage, &subscription).await, [payload]);
    }
}

/// A session's server listens first, then the hub; meanwhile others notify without a pause.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_is_lost_and_nothing_comes_twice_when_channels_move_to_the_hub() {
    // Nobody reads until the end, and a busy machine may take its time.
    let bounds = Bounds {
        queued_count_max: usize::MAX,
        queued_bytes_max: usize::MAX,
        ..Bounds::default()
    };
    let stage = Stage::with(&Postgres::shared().database(), bounds);
    let is_enough = Arc::new(AtomicBool::new(false));
    let (noise, told) = (stage.place.direct(), Arc::clone(&is_enough));
    let notifier = thread::spawn(move || {
        let mut client = noise.login();
        let mut count = 0_usize;
        while !told.load(Ordering::SeqCst) {
            notify(&mut client, "a", &[&count.to_string()]);
            count += 1;
        }
        notify(&mut client, "a", &["end"]);
        count
    });
    let mut sessions = Vec::new();
    for _ in 0..30 {
        let mut server = stage.place.direct().login();
        server.exec("listen a; listen pgusher");
        let subscription = stage.hub.subscribe();
        let set = stage
            .hub
            .set_channels(&subscription, &channels(&["a"]))
            .await;
        let cut = set.unwrap().expect("a new channel");
        // The server's part ends at the cut.
        let mut heard = Vec::new();
        loop {
            let frame = server.next();
            assert_eq!(frame.kind(), 'A', "{frame:?}");
            let notification = Notification::read(&frame.body).unwrap();
            if cut.is(&notification) {
                break;
            }
            if !is_marker(notification.channel, notification.payload) {
                heard.push(String::from_utf8(notification.payload.to_vec()).unwrap());
            }
        }
        if heard.is_empty() {
            heard.push(said(&next(&subscription).await).1);
        }
        sessions.push((subscription, heard));
    }
    is_enough.store(true, Ordering::SeqCst);
    let count = notifier.join().unwrap();
    for (subscription, mut all) in sessions {
        while all.last().is_none_or(|last| last != "end") {
            all.push(said(&next(&subscription).await).1);
        }
        let first: usize = all[0].parse().unwrap();
        let expected = (first..count).map(|number| number.to_string());
        assert_eq!(all, expected.chain(["end".into()]).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_channel_that_the_hub_has_already_is_heard_from_the_cut_on() {
    let stage = Stage::new();
    let first = stage.listens(&["a"]).await;
    let mut client = stage.place.direct().login();
    notify(&mut client, "a", &["before"]);
    let second = stage.hub.subscribe();
    let cut = stage.hub.set_channels(&second, &channels(&["a"])).await;
    assert!(cut.unwrap().is_some());
    notify(&mut client, "a", &["behind"]);
    assert_eq!(heard(&stage, &second).await, ["behind"]);
    assert_eq!(heard(&stage, &first).await, ["before", "behind"]);
    let again = stage.hub.set_channels(&second, &channels(&["a"])).await;
    assert_eq!(again.unwrap(), None, "nothing is new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn removed_channels_are_silent_at_once_and_can_come_back() {
    let stage = Stage::new();
    let subscription = stage.listens(&["a", "b"]).await;
    assert!(subscription.hears("a") && subscription.hears("b"));
    let mut client = stage.place.direct().login();
    for round in 0..5 {
        let (kept, gone) = if round % 2 == 0 {
            ("a", "b")
        } else {
            ("b", "a")
        };
        stage
            .hub
            .set_channels(&subscription, &channels(&[kept]))
            .await
            .unwrap();
        assert_eq!(subscription.channels(), channels(&[kept]));
        notify(&mut client, gone, &["gone"]);
        notify(&mut client, kept, &["kept"]);
        assert_eq!(heard(&stage, &subscription).await, ["kept"]);
    }
    assert_eq!(stage.dials.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_waits_of_a_removed_channel_goes_with_it() {
    let stage = Stage::new();
    let subscription = stage.listens(&["a", "b"]).await;
    let mut client = stage.place.direct().login();
    notify(&mut client, "a", &["gone"]);
    notify(&mut client, "b", &["kept"]);
    stage.hub.fence(&subscription).await.unwrap();
    let kept = channels(&["b"]);
    let set = stage.hub.set_channels(&subscription, &kept).await;
    assert_eq!(set.unwrap(), None);
    assert_eq!(heard(&stage, &subscription).await, ["kept"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn any_name_is_a_channel() {
    let stage = Stage::new();
    let names = [
        "a\"; select 1; --",
        "größe 😀",
        "UPPER lower",
        "'quoted' \\",
        "$1",
        &"x".repeat(63),
    ];
    let subscription = stage.listens(&names).await;
    let mut client = stage.place.direct().login();
    for name in names {
        let quoted = name.replace('\'', "''");
        client.exec(&format!("select pg_notify('{quoted}', 'here')"));
        let event = next(&subscription).await;
        assert_eq!(said(&event), (name.to_owned(), "here".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_tenant_may_use_the_markers_channel_and_never_hears_a_marker() {
    let stage = Stage::new();
    let subscription = stage.listens(&["pgusher"]).await;
    let mut client = stage.place.direct().login();
    notify(&mut client, "pgusher", &["1"]);
    for _ in 0..3 {
        stage.hub.fence(&subscription).await.unwrap();
    }
    drop(stage.listens(&["other"]).await);
    notify(&mut client, "pgusher", &["2"]);
    assert_eq!(heard(&stage, &subscription).await, ["1", "2"]);
    // Another may leave the channel: the markers stay.
    let other = stage.listens(&["pgusher", "a"]).await;
    drop(subscription);
    stage
        .hub
        .set_channels(&other, &channels(&["a"]))
        .await
        .unwrap();
    notify(&mut client, "a", &["3"]);
    assert_eq!(heard(&stage, &other).await, ["3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn notifications_of_processes_that_the_tenant_does_not_hear_are_dropped() {
    let place = Postgres::shared().database();
    let mut friend = place.direct().login();
    let mut stranger = place.direct().login();
    let pid = u32::try_from(friend.pid).unwrap();
    let hears: Hears = Box::new(move |sender| sender == pid);
    let stage = Stage::hearing(&place, Bounds::default(), hears);
    let subscription = stage.listens(&["a"]).await;
    notify(&mut stranger, "a", &["stranger"]);
    notify(&mut friend, "a", &["friend"]);
    notify(&mut stranger, "a", &["stranger"]);
    assert_eq!(heard(&stage, &subscription).await, ["friend"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_lags_is_told_and_disturbs_nobody() {
    let bounds = Bounds {
        queued_count_max: 20,
        ..Bounds::default()
    };
    let stage = Stage::with(&Postgres::shared().database(), bounds);
    let lazy = stage.listens(&["a"]).await;
    let diligent = stage.listens(&["a"]).await;
    let mut client = stage.place.direct().login();
    for number in 0..50 {
        let payload = number.to_string();
        notify(&mut client, "a", &[&payload]);
        assert_eq!(said(&next(&diligent).await).1, payload);
    }
    assert_eq!(lazy.try_next(), Some(Event::Lagged));
    assert_eq!(next(&lazy).await, Event::Lagged);
    assert!(lazy.channels().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_lost_connection_is_made_again_and_every_listener_is_told() {
    let stage = Stage::new();
    let subscriptions = [
        stage.listens(&["a"]).await,
        stage.listens(&["a", "b"]).await,
    ];
    let mut client = stage.place.direct().login();
    for round in 0..3 {
        notify(&mut client, "a", &["before"]);
        for subscription in &subscriptions {
            assert_eq!(said(&next(subscription).await).1, "before");
        }
        stage.kill();
        for subscription in &subscriptions {
            assert_eq!(next(subscription).await, Event::Interrupted, "{round}");
        }
        notify(&mut client, "a", &["behind"]);
        for subscription in &subscriptions {
            assert_eq!(heard(&stage, subscription).await, ["behind"]);
        }
    }
    assert_eq!(stage.dials.load(Ordering::SeqCst), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_connection_that_is_made_from_other_settings_now_is_replaced() {
    let stage = Stage::new();
    stage.hub.redial();
    let subscription = stage.listens(&["a"]).await;
    let mut client = stage.place.direct().login();
    for dials in 2..5 {
        stage.hub.redial();
        assert_eq!(next(&subscription).await, Event::Interrupted);
        notify(&mut client, "a", &["heard"]);
        assert_eq!(heard(&stage, &subscription).await, ["heard"]);
        assert_eq!(stage.dials.load(Ordering::SeqCst), dials);
        eventually("the old connection is closed", || stage.pids().len() == 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn requests_survive_a_lost_connection() {
    let stage = Stage::new();
    let subscription = stage.listens(&["a"]).await;
    let mut client = stage.place.direct().login();
    for number in 0..5 {
        stage.kill();
        let name = format!("c{number}");
        let wanted = channels(&["a", &name]);
        let set = stage.hub.set_channels(&subscription, &wanted);
        assert!(set.await.unwrap().is_some());
        assert_eq!(next(&subscription).await, Event::Interrupted);
        notify(&mut client, &name, &["heard"]);
        assert_eq!(heard(&stage, &subscription).await, ["heard"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_failed_dial_is_tried_again_until_the_deadline() {
    let place = Postgres::shared().database();
    let dials = Arc::new(AtomicU32::new(0));
    let hub = Hub::new(
        dialler(&place, Arc::clone(&dials), 3),
        Box::new(|_| true),
        Bounds::default(),
    );
    let subscription = hub.subscribe();
    let set = hub.set_channels(&subscription, &channels(&["a"])).await;
    assert!(set.unwrap().is_some());
    assert_eq!(dials.load(Ordering::SeqCst), 4);
    assert_eq!(subscription.try_next(), None, "nothing was interrupted");

    let bounds = Bounds {
        deadline: Duration::from_millis(300),
        ..Bounds::default()
    };
    let never = dialler(&place, Arc::default(), u32::MAX);
    let hub = Hub::new(never, Box::new(|_| true), bounds);
    let subscription = hub.subscribe();
    let set = hub.set_channels(&subscription, &channels(&["a"])).await;
    assert!(matches!(set, Err(HubError::Dial(_))), "{set:?}");
    assert!(subscription.channels().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_role_that_may_not_log_in_is_an_error_at_once() {
    let place = Postgres::shared().database();
    place
        .admin()
        .exec(&format!("alter role {} nologin", place.role()));
    let stage = Stage::with(&place, Bounds::default());
    let subscription = stage.hub.subscribe();
    let set = stage
        .hub
        .set_channels(&subscription, &channels(&["a"]))
        .await;
    assert!(matches!(set, Err(HubError::Dial(_))), "{set:?}");
    assert_eq!(stage.dials.load(Ordering::SeqCst), 1);
}

/// LATIN1 has no emoji: PostgreSQL refuses that name and no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_postgresql_refuses_is_an_error_for_that_session_alone() {
    let place = Place::database(Postgres::shared().endpoint(), Login::Scram);
    let database = place.database_name();
    let mut admin = Postgres::shared().admin();
    admin.exec(&format!("drop database {database}"));
    admin.exec(&format!(
        "create database {database} owner {} encoding 'LATIN1' template template0 locale 'C'",
        place.role()
    ));
    let stage = Stage::with(&place, Bounds::default());
    let [one, two, three] = [0; 3].map(|_| stage.hub.subscribe());
    let (hub, good, bad) = (&stage.hub, channels(&["größe"]), channels(&["😀"]));
    let (first, second, third) = tokio::join!(
        hub.set_channels(&one, &good),
        hub.set_channels(&two, &bad),
        hub.set_channels(&three, &good),
    );
    assert!(first.unwrap().is_some() && third.unwrap().is_some());
    let Err(HubError::Refused { sqlstate, .. }) = second else {
        panic!("not refused: {second:?}");
    };
    assert_eq!(sqlstate, "22P05");
    assert!(two.channels().is_empty());
    let mut client = place.direct().parameter("client_encoding", "UTF8").login();
    notify(&mut client, "größe", &["groß"]);
    for subscription in [one, three] {
        assert_eq!(heard(&stage, &subscription).await, ["groß"]);
    }
    assert_eq!(stage.dials.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn channels_are_bounded_by_session_and_in_all() {
    let bounds = Bounds {
        channels_per_session_max: 2,
        channels_max: 3,
        ..Bounds::default()
    };
    let stage = Stage::with(&Postgres::shared().database(), bounds);
    let one = stage.listens(&["a", "b"]).await;
    let wanted = channels(&["a", "b", "c"]);
    let refused = stage.hub.set_channels(&one, &wanted).await;
    assert!(
        matches!(refused, Err(HubError::TooManyChannels { max: 2 })),
        "{refused:?}"
    );
    let two = stage.listens(&["a", "c"]).await;
    let set = stage.hub.set_channels(&two, &channels(&["c", "d"])).await;
    assert!(
        matches!(set, Err(HubError::TooManyChannels { max: 3 })),
        "{set:?}"
    );
    drop(one);
    stage.hub.fence(&two).await.unwrap();
    let set = stage.hub.set_channels(&two, &channels(&["c", "d"])).await;
    assert!(set.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_connection_is_closed_when_nobody_has_listened_for_a_while_and_made_again() {
    let bounds = Bounds {
        idle_timeout: Duration::from_millis(50),
        ..Bounds::default()
    };
    let stage = Stage::with(&Postgres::shared().database(), bounds);
    for round in 1..4 {
        let subscription = stage.listens(&["a"]).await;
        assert_eq!(stage.pids().len(), 1);
        notify(&mut stage.place.direct().login(), "a", &["heard"]);
        assert_eq!(heard(&stage, &subscription).await, ["heard"]);
        drop(subscription);
        stage.is_without_connection();
        assert_eq!(stage.dials.load(Ordering::SeqCst), round);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_hub_goes_with_its_last_subscription() {
    let stage = Stage::new();
    let subscription = stage.listens(&["a"]).await;
    let Stage { place, hub, dials } = stage;
    drop(hub);
    notify(&mut place.direct().login(), "a", &["heard"]);
    assert_eq!(said(&next(&subscription).await).1, "heard");
    drop(subscription);
    let hub = Hub::new(
        dialler(&place, Arc::clone(&dials), 0),
        Box::new(|_| true),
        Bounds::default(),
    );
    let stage = Stage { place, hub, dials };
    stage.is_without_connection();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_idle_listener_is_asked_whether_it_lives() {
    let bounds = Bounds {
        check_interval: Duration::from_millis(20),
        ..Bounds::default()
    };
    let stage = Stage::with(&Postgres::shared().database(), bounds);
    let subscription = stage.listens(&["a"]).await;
    let [pid] = stage.pids().try_into().expect("one listener");
    let sql = format!("select state_change from pg_stat_activity where pid = {pid}");
    let mut admin = stage.place.admin();
    let before = admin.value(&sql);
    eventually("the listener was asked", || admin.value(&sql) != before);
    notify(&mut admin, "a", &["heard"]);
    assert_eq!(heard(&stage, &subscription).await, ["heard"]);
}

//! A run: PostgreSQL, the proxy, two tenants, their clients.

use super::{
    actor::Actor,
    aftermath,
    harness::{Place, Postgres, Proxy, Tenant, proxy::is_left_out},
    setup,
    world::{Until, World},
};
use std::{
    env,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// Steps of each client, when no time is set.
const STEPS: u32 = 60;

/// Clients of the first tenant, and of the second.
const CLIENTS: [(&str, usize); 2] = [("acme", 64), ("globex", 4)];

/// How many servers each tenant has, and how long it goes.
pub struct Run {
    pool_size: u32,
    seed: u64,
    until: Until,
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

impl Run {
    /// As the environment says.
    pub fn with_pool_size(pool_size: u32) -> Self {
        let seconds = number("PGUSHER_ORACLE_SECONDS");
        Self {
            pool_size,
            seed: number("PGUSHER_ORACLE_SEED").unwrap_or(1),
            until: seconds.map_or(Until::Steps(STEPS), |seconds| {
                Until::Time(Instant::now() + Duration::from_secs(seconds))
            }),
        }
    }

    /// Runs all scripts, and looks at what is left behind.
    pub fn check(self) {
        let postgres = Postgres::start();
        let places = CLIENTS.map(|(tenant, _)| (tenant, postgres.database()));
        for (_, place) in &places {
            setup::furnish(place);
        }
        let tenants = places.iter().map(|(tenant, place)| {
            Tenant::new(tenant, place)
                .pool_size(self.pool_size)
                .set("max_pinned_servers", self.pool_size - 1)
        });
        let proxy = Proxy::of(tenants).admin().start();
        let worlds = places.map(|(tenant, place)| Arc::new(self.world(tenant, &place, &proxy)));
        for world in &worlds {
            // Only from a tenant's first question on are numbers kept for those who ask.
            world.connect.login().fails("select lastval()");
        }
        play(&worlds);
        for world in &worlds {
            println!(
                "{}: {} steps, {:?}",
                world.tenant,
                world.steps(),
                world.counts.lock()
            );
            aftermath::nothing_is_left(world);
            let ended = world.counted("ended by a kill");
            assert!(ended <= world.counted("kills"), "{ended} sessions ended");
        }
        if !is_left_out() {
            aftermath::no_server_is_stranded(&proxy);
            for world in &worlds {
                aftermath::all_servers_are_as_new(world);
            }
            aftermath::no_server_is_stranded(&proxy);
            assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
        }
    }

    fn world(&self, tenant: &str, place: &Place, proxy: &Proxy) -> World {
        let mut world = World::new(tenant, place.role(), proxy.connect(tenant), place.admin());
        world.defaults = setup::defaults(place);
        world.seed = self.seed;
        world.pool_size = self.pool_size;
        world.until = self.until;
        let without = env::var("PGUSHER_ORACLE_WITHOUT").unwrap_or_default();
        world.without = without.split(',').map(str::to_owned).collect();
        world
    }
}

fn play(worlds: &[Arc<World>]) {
    thread::scope(|scope| {
        for (world, (_, count)) in worlds.iter().zip(CLIENTS) {
            for number in 0..count {
                let world = Arc::clone(world);
                scope.spawn(move || Actor::new(world, number).play());
            }
        }
    });
}

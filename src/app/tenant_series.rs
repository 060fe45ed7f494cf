//! What is told of single tenants at a scrape: those that use most, and the others together.

use crate::{
    frontend::Frontend,
    telemetry::{
        Collect, Family, Text,
        names::tenants::{
            ALL_TRANSACTION_SECONDS, CHECKOUT_WAIT_SECONDS, CLIENT_BYTES, CLIENT_CONNECTIONS,
            CLIENTS_WAITING, ERRORS, LE, OTHER, QUERIES, ROWS, SERVER_BYTES, SERVER_CONNECTIONS,
            SERVER_SECONDS, TENANT, TRANSACTION_SECONDS, TRANSACTIONS, WAIT_SECONDS,
        },
    },
    tenant::TenantId,
    usage::{Board, Line, Lines, Reading, Spread},
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

/// Microseconds, told as seconds, exactly.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let rest = format!("{rest:06}");
        write!(f, "{whole}.{}", rest.trim_end_matches('0'))
    }
}

/// A metric, and what it tells.
type Told<T> = (Family, fn(&Reading) -> T);

/// The counters that count things.
const COUNTS: [Told<u64>; 6] = [
    (QUERIES, |reading| reading.figures.queries),
    (TRANSACTIONS, |reading| reading.figures.transactions),
    (ROWS, |reading| reading.figures.rows),
    (CLIENT_BYTES, |reading| reading.figures.client_bytes),
    (SERVER_BYTES, |reading| reading.figures.server_bytes),
    (ERRORS, |reading| reading.errors),
];

/// The counters of time, in microseconds.
const TIMES: [Told<u64>; 2] = [
    (SERVER_SECONDS, |reading| reading.figures.server_time_us),
    (WAIT_SECONDS, |reading| reading.figures.wait_time_us),
];

const HISTOGRAMS: [Told<Spread>; 2] = [
    (TRANSACTION_SECONDS, |reading| reading.transactions),
    (CHECKOUT_WAIT_SECONDS, |reading| reading.waits),
];

/// What pools have now.
#[derive(Debug, Clone, Copy, Default)]
struct Pooled {
    servers: u64,
    waiting: u64,
}

impl Pooled {
    fn add(&mut self, more: Self) {
        self.servers += more.servers;
        self.waiting += more.waiting;
    }
}

/// What the pools of each line have now.
#[derive(Debug, Default)]
struct Places(HashMap<Option<TenantId>, Pooled>);

impl Places {
    fn of(&self, line: &Line) -> Pooled {
        self.0.get(&line.tenant).copied().unwrap_or_default()
    }
}

/// A gauge, and what it tells.
type Now = (Family, fn(&Line, &Places) -> u64);

/// Tells of tenants.
pub(super) struct TenantSeries {
    frontend: Arc<Frontend>,
    /// Tenants that are told apart; 0: none, and nothing is told by tenant.
    places: AtomicUsize,
    board: Mutex<Board>,
}

impl TenantSeries {
    pub(super) fn new(frontend: &Arc<Frontend>, places: u32) -> Self {
        let series = Self {
            frontend: Arc::clone(frontend),
            places: AtomicUsize::new(0),
            board: Mutex::default(),
        };
        series.set_places(places);
        series
    }

    /// From the next scrape on so many tenants are told apart.
    pub(super) fn set_places(&self, places: u32) {
        self.places.store(places as usize, Relaxed);
    }

    fn pooled(&self, lines: &Lines) -> Places {
        let shown = lines.lines.iter();
        let mut pooled: HashMap<_, _> = shown
            .map(|line| (line.tenant.clone(), Pooled::default()))
            .collect();
        let slots = Pooled {
            servers: self.frontend.pools.idle_slots() as u64,
            waiting: 0,
        };
        pooled.entry(None).or_default().add(slots);
        for pool in self.frontend.pools.all() {
            let occupancy = pool.occupancy();
            let tenant = Some(pool.tenant().clone());
            let line = if pooled.contains_key(&tenant) {
                tenant
            } else {
                None
            };
            pooled.entry(line).or_default().add(Pooled {
                servers: (occupancy.active + occupancy.idle) as u64,
                waiting: occupancy.waiting as u64,
            });
        }
        Places(pooled)
    }
}

impl Collect for TenantSeries {
    fn write(&self, text: &mut Text) {
        let places = self.places.load(Relaxed);
        let book = &self.frontend.sessions.usage;
        let lines = self.board.lock().look(book, places, Instant::now());
        text.family(&ALL_TRANSACTION_SECONDS);
        spread(
            text,
            &ALL_TRANSACTION_SECONDS,
            None,
            &lines.all.transactions,
        );
        if places > 0 {
            write_lines(text, &lines, &self.pooled(&lines));
        }
    }
}

fn label(line: &Line) -> &str {
    line.tenant.as_ref().map_or(OTHER, TenantId::as_str)
}

fn write_lines(text: &mut Text, lines: &Lines, places: &Places) {
    let mut each = |family: &Family, write: &dyn Fn(&mut Text, &Line)| {
        text.family(family);
        lines.lines.iter().for_each(|line| write(text, line));
    };
    for (family, of) in &COUNTS {
        each(family, &|text, line| {
            text.sample((family, ""), &[(TENANT, label(line))], of(&line.reading));
        });
    }
    for (family, of) in &TIMES {
        each(family, &|text, line| {
            let time = Seconds(of(&line.reading));
            text.sample((family, ""), &[(TENANT, label(line))], time);
        });
    }
    let gauges: [Now; 3] = [
        (CLIENT_CONNECTIONS, |line, _| line.clients),
        (SERVER_CONNECTIONS, |line, places| places.of(line).servers),
        (CLIENTS_WAITING, |line, places| places.of(line).waiting),
    ];
    for (family, of) in &gauges {
        each(family, &|text, line| {
            let now = of(line, places);
            text.sample((family, ""), &[(TENANT, label(line))], now);
        });
    }
    for (family, of) in &HISTOGRAMS {
        each(family, &|text, line| {
            spread(text, family, Some(label(line)), &of(&line.reading));
        });
    }
}

/// A histogram's samples.
fn spread(text: &mut Text, family: &Family, tenant: Option<&str>, spread: &Spread) {
    let own: Vec<_> = tenant.map(|tenant| (TENANT, tenant)).into_iter().collect();
    let mut bucket = |bound: &str, count: u64| {
        let labels: Vec<_> = own.iter().copied().chain([(LE, bound)]).collect();
        text.sample((family, "_bucket"), &labels, count);
    };
    for (bound, count) in spread.cumulative() {
        bucket(&Seconds(bound).to_string(), count);
    }
    bucket("+Inf", spread.count());
    text.sample((family, "_sum"), &own, Seconds(spread.sum_us));
    text.sample((family, "_count"), &own, spread.count());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        telemetry::metrics::SECONDS_BUCKETS,
        usage::{BOUNDS_US, Book, Counters},
    };

    #[test]
    fn seconds_are_told_exactly_and_bounds_are_those_of_all_histograms() {
        for (micros, text) in [
            (0, "0"),
            (100, "0.0001"),
            (2_500, "0.0025"),
            (1_000_001, "1.000001"),
            (120_000_000, "120"),
            (u64::MAX, "18446744073709.551615"),
        ] {
            assert_eq!(Seconds(micros).to_string(), text);
        }
        let bounds = BOUNDS_US.map(|bound| Seconds(bound).to_string());
        assert_eq!(bounds, SECONDS_BUCKETS.map(|bound| bound.to_string()));
    }

    #[test]
    fn ten_thousand_tenants_make_a_text_no_longer_than_those_that_are_told_apart() {
        let book = Book::default();
        for number in 0..10_000_u32 {
            let tenant = TenantId::new(&format!("t{number}")).unwrap();
            let counters = Arc::<Counters>::default();
            Counters::add(&counters.server_time_us, u64::from(number));
            Counters::add(&counters.queries, 1);
            book.begin(&tenant, number, &counters);
        }
        let mut board = Board::default();
        let mut told = |places| {
            let lines = board.look(&book, places, Instant::now());
            let mut text = Text::default();
            write_lines(&mut text, &lines, &Places::default());
            text.into_string()
        };
        let text = told(20);
        // 13 families with two lines of their own; 11 numbers and two histograms for each of 21.
        assert_eq!(text.lines().count(), 13 * 2 + 21 * (11 + 2 * 17));
        assert!(text.contains("pgusher_tenant_queries_total{tenant=\"(other)\"} 10000\n"));
        assert!(text.contains("pgusher_tenant_queries_total{tenant=\"t9999\"} 0\n"));
        assert!(!text.contains("tenant=\"t9979\""));
        assert_eq!(told(1).lines().count(), 13 * 2 + 2 * (11 + 2 * 17));
    }
}

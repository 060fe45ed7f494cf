use super::*;
use crate::usage::Counters;

/// Tenants with a session each, and a clock.
struct Town {
    book: Book,
    board: Board,
    counters: BTreeMap<&'static str, (u32, Arc<Counters>)>,
    start: Instant,
    now: Instant,
    /// The sum of the growth of all lines, as who scrapes sees it.
    grown: u64,
    lines: BTreeMap<Option<TenantId>, u64>,
}

impl Town {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            book: Book::default(),
            board: Board::default(),
            counters: BTreeMap::new(),
            start: now,
            now,
            grown: 0,
            lines: BTreeMap::new(),
        }
    }

    /// Has a tenant use a server for so long, in as many transactions.
    fn uses(&mut self, tenant: &'static str, seconds: u64) {
        let id = TenantId::new(tenant).unwrap();
        let session = u32::try_from(self.counters.len()).unwrap();
        let (_, counters) = self.counters.entry(tenant).or_insert_with(|| {
            let counters = Arc::default();
            self.book.begin(&id, session, &counters);
            (session, counters)
        });
        Counters::add(&counters.server_time_us, seconds * 1_000_000);
        Counters::add(&counters.transactions, seconds);
    }

    fn leaves(&mut self, tenant: &'static str) {
        let (session, _) = self.counters.remove(tenant).unwrap();
        self.book.meter(tenant).unwrap().end(session);
    }

    /// Looks after so many minutes. No line may have become less.
    fn look(&mut self, places: usize, minutes: u64) -> Lines {
        self.now += Duration::from_mins(minutes);
        let told = self.board.look(&self.book, places, self.now);
        let mut lines = BTreeMap::new();
        for line in &told.lines {
            let now = line.reading.figures.transactions;
            // A line that is new begins at nothing, or is the first look at all.
            let before = self.lines.get(&line.tenant).copied().unwrap_or(0);
            assert!(now >= before, "{:?}: {before}, {now}", line.tenant);
            self.grown += now - before;
            lines.insert(line.tenant.clone(), now);
        }
        self.lines = lines;
        assert_eq!(self.grown, told.all.figures.transactions);
        told
    }

    fn told(&self, tenant: &str) -> Option<u64> {
        self.lines
            .get(&Some(TenantId::new(tenant).unwrap()))
            .copied()
    }

    fn others(&self) -> u64 {
        self.lines[&None]
    }
}

#[test]
fn those_who_use_most_have_lines_and_each_transaction_is_in_one() {
    let mut town = Town::new();
    assert_eq!(town.look(2, 0).lines.len(), 1);
    for (tenant, seconds) in [("a", 30), ("b", 20), ("c", 10)] {
        town.uses(tenant, seconds);
    }
    town.look(2, 1);
    // What was used before a line began is the others'.
    assert_eq!(
        (town.told("a"), town.told("b"), town.told("c")),
        (Some(0), Some(0), None)
    );
    assert_eq!(town.others(), 60);
    for (tenant, seconds) in [("a", 3), ("b", 2), ("c", 1)] {
        town.uses(tenant, seconds);
    }
    let lines = town.look(2, 1);
    assert_eq!((town.told("a"), town.told("b")), (Some(3), Some(2)));
    assert_eq!(town.others(), 61);
    assert_eq!(lines.lines.last().unwrap().clients, 1);
}

#[test]
fn who_is_in_use_keeps_its_line_for_an_hour_and_who_is_not_gives_it_up() {
    let mut town = Town::new();
    town.uses("a", 30);
    town.uses("b", 20);
    town.look(2, 1);
    town.uses("c", 500);
    town.uses("a", 1);
    town.look(2, 30);
    assert_eq!((town.told("b"), town.told("c")), (Some(0), None));
    // After the hour the least is displaced; it used something since it was last told.
    town.uses("b", 7);
    town.uses("c", 5);
    town.look(2, 40);
    assert_eq!(
        (town.told("a"), town.told("b"), town.told("c")),
        (None, Some(7), Some(0))
    );
    // One that has left and used nothing since gives way at once.
    town.leaves("b");
    town.look(2, 1);
    assert_eq!(town.told("b"), Some(7));
    town.uses("a", 900);
    let others = town.others();
    town.look(2, 1);
    assert_eq!((town.told("a"), town.told("b")), (Some(0), None));
    // Nothing of b's past came to the others, and a's line begins anew.
    assert_eq!(town.others(), others + 900);
    town.uses("b", 2);
    town.uses("a", 4);
    town.look(2, 1);
    assert_eq!((town.told("a"), town.others()), (Some(4), others + 902));
}

#[test]
fn what_a_tenant_used_between_the_last_look_and_its_end_is_the_others() {
    let mut town = Town::new();
    town.uses("a", 10);
    town.look(1, 1);
    town.uses("a", 5);
    town.look(1, 1);
    assert_eq!((town.told("a"), town.others()), (Some(5), 10));
    town.uses("a", 3);
    town.look(0, 1);
    assert_eq!((town.told("a"), town.others()), (None, 13));
    town.uses("a", 1);
    town.look(1, 1);
    town.uses("a", 1);
    town.look(1, 1);
    assert_eq!((town.told("a"), town.others()), (Some(1), 14));
}

#[test]
fn a_line_that_nobody_needs_ends_an_hour_after_its_tenant_left() {
    let mut town = Town::new();
    town.uses("a", 10);
    town.look(5, 1);
    town.leaves("a");
    town.look(5, 50);
    assert_eq!(town.told("a"), Some(0));
    town.look(5, 61);
    assert_eq!((town.told("a"), town.others()), (None, 10));
    assert!(town.now > town.start);
}

//! A server that is not there: cores that are shared by what runs, statements that compute and then wait
//! for a clock, and clients that send the next one when the last is answered.

#![expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]

use super::*;
use std::collections::VecDeque;

/// What a tenant's clients send.
#[derive(Debug, Clone, Copy)]
struct Load {
    clients: usize,
    /// Milliseconds of a core, and of a clock.
    computes: f64,
    sleeps: f64,
    /// Milliseconds between an answer and the next statement.
    thinks: f64,
    /// Milliseconds until a statement that was let in begins.
    reaches: f64,
}

impl Load {
    const fn flood(clients: usize, computes: f64, sleeps: f64) -> Self {
        Self {
            clients,
            computes,
            sleeps,
            thinks: 0.2,
            reaches: 0.0,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Until then.
    Thinks(f64),
    Waits,
    /// Is on its way to the server until then.
    Reaches(f64),
    /// So much is left.
    Computes(f64),
    Sleeps(f64),
}

struct Client {
    tenant: usize,
    state: State,
}

struct Server {
    cores: f64,
    now: f64,
    limit: u32,
    running: u32,
    loads: Vec<Load>,
    clients: Vec<Client>,
    queues: Vec<VecDeque<usize>>,
    /// Time that each tenant's statements ran.
    used: Vec<f64>,
    seed: u64,
    starts: Vec<u64>,
    busy: Vec<f64>,
    waited: Vec<f64>,
    somebody_waited: f64,
    done: Vec<u64>,
}

impl Server {
    fn new(cores: f64, loads: &[Load]) -> Self {
        let mut server = Self {
            cores,
            now: 0.0,
            limit: 0,
            running: 0,
            loads: Vec::new(),
            clients: Vec::new(),
            queues: Vec::new(),
            used: Vec::new(),
            seed: 7,
            starts: Vec::new(),
            busy: Vec::new(),
            waited: Vec::new(),
            somebody_waited: 0.0,
            done: Vec::new(),
        };
        server.serves(loads);
        server
    }

    /// Has other clients from now on.
    fn serves(&mut self, loads: &[Load]) {
        self.loads = loads.to_vec();
        self.running = 0;
        self.clients.clear();
        for (tenant, load) in loads.iter().enumerate() {
            for _ in 0..load.clients {
                let begin = self.now + self.random() * load.thinks;
                let state = State::Thinks(begin);
                self.clients.push(Client { tenant, state });
            }
        }
        self.queues = loads.iter().map(|_| VecDeque::new()).collect();
        self.done = vec![0; loads.len()];
        self.used = vec![0.0; loads.len()];
        self.forget();
    }

    fn forget(&mut self) {
        self.starts = vec![0; self.loads.len()];
        self.busy = vec![0.0; self.loads.len()];
        self.waited = vec![0.0; self.loads.len()];
        self.somebody_waited = 0.0;
    }

    fn random(&mut self) -> f64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) as f64 / f64::from(1_u32 << 31)
    }

    /// Between half and one and a half of it.
    fn about(&mut self, mean: f64) -> f64 {
        mean * (0.5 + self.random())
    }

    /// What a core does in a millisecond now: sometimes something else takes a tenth.
    fn pace(&self, computing: usize) -> f64 {
        let others = 0.1 * (0.5 + 0.5 * (self.now / 770.0).sin());
        (self.cores * (1.0 - others) / computing.max(1) as f64).min(1.0)
    }

    fn runs_until(&mut self, end: f64) {
        while self.now < end {
            self.lets_in();
            let computes = |client: &&Client| matches!(client.state, State::Computes(_));
            let computing = self.clients.iter().filter(computes).count();
            let pace = self.pace(computing);
            let mut next = end.min(self.now + 100.0);
            for client in &self.clients {
                next = next.min(match client.state {
                    State::Thinks(until) | State::Reaches(until) | State::Sleeps(until) => until,
                    State::Computes(left) => self.now + left / pace,
                    State::Waits => f64::INFINITY,
                });
            }
            let passed = (next - self.now).max(0.0);
            self.now = next;
            self.passes(passed, pace);
        }
    }

    fn passes(&mut self, passed: f64, pace: f64) {
        let is_waiting = self.queues.iter().any(|queue| !queue.is_empty());
        self.somebody_waited += if is_waiting { passed } else { 0.0 };
        for (queue, waited) in self.queues.iter().zip(&mut self.waited) {
            *waited += if queue.is_empty() { 0.0 } else { passed };
        }
        for at in 0..self.clients.len() {
            let Client { tenant, state } = self.clients[at];
            let load = self.loads[tenant];
            if !matches!(state, State::Thinks(_) | State::Waits) {
                self.busy[tenant] += passed;
                self.used[tenant] += passed;
            }
            let is_over = |until: f64| until <= self.now + 1e-9;
            self.clients[at].state = match state {
                State::Thinks(until) if is_over(until) => {
                    self.queues[tenant].push_back(at);
                    State::Waits
                }
                State::Reaches(until) if is_over(until) => {
                    let computes = self.about(load.computes);
                    State::Computes(computes)
                }
                State::Computes(left) if left - passed * pace > 1e-9 => {
                    State::Computes(left - passed * pace)
                }
                State::Computes(_) if load.sleeps > 0.0 => {
                    let sleeps = self.about(load.sleeps);
                    State::Sleeps(self.now + sleeps)
                }
                State::Sleeps(until) if !is_over(until) => state,
                State::Computes(_) | State::Sleeps(_) => {
                    self.running -= 1;
                    self.done[tenant] += 1;
                    let thinks = self.about(load.thinks);
                    State::Thinks(self.now + thinks)
                }
                state => state,
            };
        }
    }

    /// Lets in who waits: of the tenant that has run least.
    fn lets_in(&mut self) {
        while self.running < self.limit {
            let waiting = (0..self.queues.len()).filter(|at| !self.queues[*at].is_empty());
            let least = waiting.min_by(|a, b| self.used[*a].total_cmp(&self.used[*b]));
            let Some(tenant) = least else {
                return;
            };
            let Some(at) = self.queues[tenant].pop_front() else {
                return;
            };
            let reaches = self.loads[tenant].reaches;
            self.clients[at].state = State::Reaches(self.now + reaches);
            self.running += 1;
            self.starts[tenant] += 1;
        }
    }

    fn does(&mut self, step: Step) -> Seen {
        self.limit = step.limit;
        self.runs_until(self.now + step.settle.as_secs_f64() * 1e3);
        self.forget();
        let window = step.window.as_secs_f64() * 1e3;
        self.runs_until(self.now + window);
        let part = |tenant: usize| Part {
            starts: self.starts[tenant] as f64,
            busy: self.busy[tenant] / window,
            waits: self.waited[tenant] > 0.0,
        };
        Seen {
            length: step.window,
            // There are as many servers as may run: what waits then waits for those.
            waits: self.somebody_waited > window / 2.0 && self.limit < BOUNDS.ceiling,
            is_crowded: self.somebody_waited > window / 2.0,
            parts: (0..self.loads.len())
                .map(|tenant| (tenant as u64, part(tenant)))
                .collect(),
        }
    }

    /// Statements of each tenant in a second under a fixed limit.
    fn fixed(&mut self, limit: u32, seconds: f64) -> Vec<f64> {
        self.limit = limit;
        self.runs_until(self.now + 1000.0);
        self.done.fill(0);
        self.runs_until(self.now + seconds * 1e3);
        self.rates(seconds)
    }

    fn rates(&self, seconds: f64) -> Vec<f64> {
        self.done.iter().map(|it| *it as f64 / seconds).collect()
    }

    /// Looks for the limit for so long: statements of each tenant in a second, and the limits that were
    /// held, each for how many milliseconds.
    fn searched(&mut self, search: &mut Search, seconds: f64) -> (Vec<f64>, Vec<(u32, f64)>) {
        let end = self.now + seconds * 1e3;
        self.done.fill(0);
        let mut held = Vec::new();
        while self.now < end {
            let began = self.now;
            let step = search.step();
            let seen = self.does(step);
            search.learn(&seen);
            held.push((step.limit, self.now - began));
        }
        (self.rates(seconds), held)
    }
}

const BOUNDS: Bounds = Bounds {
    floor: 2,
    ceiling: 64,
};

/// The part of the time in which the limit was at most so high.
fn share_below(held: &[(u32, f64)], limit: u32) -> f64 {
    let all: f64 = held.iter().map(|(_, time)| time).sum();
    let below = held.iter().filter(|(it, _)| *it <= limit);
    below.map(|(_, time)| time).sum::<f64>() / all
}

/// Lets it look for a while, and then compares what is done with what is without a limit, and says how
/// much of the time the limit was at most so high.
fn found(cores: f64, loads: &[Load], below: u32) -> (f64, f64, u32) {
    let free: f64 = Server::new(cores, loads).fixed(64, 40.0).iter().sum();
    let mut server = Server::new(cores, loads);
    let mut search = Search::new(BOUNDS);
    server.searched(&mut search, 90.0);
    let (rates, held) = server.searched(&mut search, 120.0);
    let share = share_below(&held, below);
    let ratio = rates.iter().sum::<f64>() / free;
    (ratio, share, search.limit())
}

#[test]
fn statements_that_compute_run_as_many_as_there_are_cores_or_some_more() {
    for (cores, most) in [(1.0, 4), (2.0, 4), (4.0, 8), (16.0, 32)] {
        let (ratio, share, limit) = found(cores, &[Load::flood(100, 20.0, 0.0)], most);
        assert!(ratio > 0.95 && share > 0.9, "{cores}: {limit}");
    }
}

#[test]
fn while_a_place_is_handed_on_another_runs() {
    for (cores, reaches, most) in [(2.0, 1.0, 6), (2.0, 4.0, 10), (4.0, 1.0, 8)] {
        let load = Load {
            reaches,
            ..Load::flood(100, 20.0, 0.0)
        };
        let (ratio, share, limit) = found(cores, &[load], most);
        assert!(ratio > 0.98 && share > 0.9, "{cores}: {limit}, {ratio}");
    }
}

#[test]
fn short_statements_run_as_many_as_there_are_cores_or_some_more() {
    let (ratio, share, limit) = found(2.0, &[Load::flood(100, 1.0, 0.0)], 6);
    assert!(ratio > 0.95 && share > 0.95, "{limit}");
}

#[test]
fn statements_that_are_over_in_a_moment_do_not_queue() {
    // The second would take as long as one of many milliseconds, as so many run.
    for (clients, computes) in [(16, 0.05), (100, 0.5)] {
        let load = Load {
            thinks: 0.05,
            ..Load::flood(clients, computes, 0.0)
        };
        let mut server = Server::new(2.0, &[load]);
        let mut search = Search::new(BOUNDS);
        server.searched(&mut search, 2.0);
        let (_, held) = server.searched(&mut search, 20.0);
        assert!(
            held.iter().all(|(limit, _)| *limit == BOUNDS.ceiling),
            "{held:?}"
        );
    }
}

#[test]
fn statements_that_wait_for_a_clock_are_not_held_back() {
    for sleeps in [20.0, 300.0, 5000.0] {
        let (ratio, ..) = found(2.0, &[Load::flood(100, 0.01, sleeps)], 64);
        assert!(ratio > 0.9, "{sleeps} ms: {ratio}");
    }
}

#[test]
fn statements_that_compute_and_wait_for_disks_run_as_many_as_keep_the_cores_busy() {
    // Two cores are busy with eight of them, if each comes at the right time.
    let (ratio, share, limit) = found(2.0, &[Load::flood(100, 5.0, 15.0)], 32);
    assert!(ratio > 0.95 && share > 0.9, "{limit}");
}

#[test]
fn a_tenant_that_waits_for_a_clock_is_not_held_back_for_one_that_computes() {
    let loads = [Load::flood(60, 0.01, 20.0), Load::flood(60, 20.0, 0.0)];
    let free = Server::new(2.0, &loads).fixed(64, 60.0);
    let mut server = Server::new(2.0, &loads);
    let mut search = Search::new(BOUNDS);
    server.searched(&mut search, 20.0);
    let (rates, _) = server.searched(&mut search, 120.0);
    assert!(rates[0] > 0.8 * free[0], "{rates:?} of {free:?}");
}

#[test]
fn it_follows_when_the_work_is_another() {
    let computes = [Load::flood(100, 20.0, 0.0)];
    let sleeps = [Load::flood(100, 0.01, 20.0)];
    let mut server = Server::new(2.0, &computes);
    let mut search = Search::new(BOUNDS);
    for _ in 0..3 {
        server.serves(&computes);
        server.searched(&mut search, 120.0);
        assert!(search.limit() <= 6, "{}", search.limit());
        // Until it is sure of itself, and rests.
        server.searched(&mut search, 200.0);
        server.serves(&sleeps);
        server.searched(&mut search, 45.0);
        assert!(search.limit() >= 48, "{}", search.limit());
    }
}

#[test]
fn who_does_little_does_as_much_as_without_it() {
    // Twelve clients that think for 100 ms and have queries of 10 ms: the cores are half busy.
    let load = Load {
        thinks: 100.0,
        ..Load::flood(12, 10.0, 0.0)
    };
    let (ratio, share, limit) = found(2.0, &[load], 63);
    assert!(ratio > 0.97, "{ratio}");
    assert!(
        share < 0.01,
        "nobody waits: nothing is to be found; {limit}"
    );
}

#[test]
fn what_was_found_for_a_flood_does_not_hold_others_back() {
    let mut server = Server::new(2.0, &[Load::flood(100, 20.0, 0.0)]);
    let mut search = Search::new(BOUNDS);
    server.searched(&mut search, 60.0);
    assert!(search.limit() <= 4);
    let load = Load {
        thinks: 400.0,
        ..Load::flood(12, 10.0, 0.0)
    };
    server.serves(&[load]);
    server.searched(&mut search, 15.0);
    assert_eq!(search.limit(), BOUNDS.ceiling);
}

#[test]
fn it_stays_within_its_bounds() {
    let bounds = Bounds {
        floor: 3,
        ceiling: 5,
    };
    for load in [Load::flood(100, 20.0, 0.0), Load::flood(100, 0.01, 20.0)] {
        let mut server = Server::new(1.0, &[load]);
        let mut search = Search::new(bounds);
        let (_, held) = server.searched(&mut search, 60.0);
        assert!(held.iter().all(|(limit, _)| (3..=5).contains(limit)));
        search.set_bounds(BOUNDS);
        let (_, held) = server.searched(&mut search, 60.0);
        assert!(held.iter().any(|(limit, _)| !(3..=5).contains(limit)));
    }
}

#[test]
fn floods_of_many_tenants_are_one_flood() {
    let one = Load {
        thinks: 200.0,
        ..Load::flood(1, 20.0, 0.0)
    };
    let (ratio, share, limit) = found(2.0, &[one; 100], 6);
    assert!(ratio > 0.95 && share > 0.9, "{limit}");
}

#[test]
fn statements_that_are_slow_among_others_are_held_back_all_the_same() {
    // Alone they take 60 ms; all together, two seconds.
    let (ratio, share, limit) = found(2.0, &[Load::flood(100, 60.0, 0.0)], 12);
    assert!(ratio > 0.9 && share > 0.5, "{limit}");
}

#[test]
fn a_server_with_much_to_do_and_cores_left_is_let_alone() {
    // Thirty of sixty-four cores are busy, and what comes is not a queue.
    let load = Load {
        thinks: 100.0,
        ..Load::flood(60, 100.0, 0.0)
    };
    let (ratio, share, limit) = found(64.0, &[load], 63);
    assert!(ratio > 0.97 && share == 0.0, "{limit}: {ratio}, {share}");
}

#[test]
fn near_the_ceiling_it_comes_to_rest() {
    // As much gets done with three quarters of the ceiling, and no less will do.
    for sleeps in [70.0, 80.0] {
        let mut server = Server::new(2.0, &[Load::flood(150, 4.0, sleeps)]);
        let mut search = Search::new(BOUNDS);
        server.searched(&mut search, 120.0);
        let (_, held) = server.searched(&mut search, 240.0);
        let at_rest = held.iter().filter(|(limit, _)| *limit == search.limit());
        let [at_rest, all] = [at_rest.map(|(_, time)| time).sum(), 240e3_f64];
        assert!(at_rest > 0.8 * all, "{at_rest}: {held:?}");
    }
}

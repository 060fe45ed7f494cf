//! Many clients at once, each of which knows what only it may see.

use crate::harness::{
    Client, Connect, Mode, Postgres, Proxy, Request, Tenant,
    frames::{code, error, firsts},
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// How long the storm lasts.
const STORM: Duration = Duration::from_secs(3);
/// However slow the machine, every client asks so many questions.
const ASKED_MIN: u32 = 20;

/// A small generator of numbers: the same for the same seed.
struct Dice(u32);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % sides
    }
}

/// A client in the storm: what it asks carries its own mark, and so must every answer.
struct Caller {
    connect: Connect,
    client: Client,
    tenant: String,
    role: String,
    mark: String,
    asked: u32,
}

impl Caller {
    fn new(proxy: &Proxy, tenant: &str, number: usize) -> Self {
        let connect = proxy.connect(tenant);
        let role = proxy.place(tenant).role().to_owned();
        let mark = format!("{tenant}/{number}");
        let mut caller = Self {
            client: connect.login(),
            connect,
            tenant: tenant.to_owned(),
            role,
            mark,
            asked: 0,
        };
        caller.prepare();
        caller
    }

    /// The names are the same for all callers, the texts are not.
    fn prepare(&mut self) {
        let own = format!("select '{}/' || $1, current_user", self.mark);
        let request = Request::new()
            .parse("own", &own)
            .parse("shared", "select $1::text || '/' || $2, current_user")
            .sync();
        assert_eq!(code(&self.client.ask(&request)), "");
    }

    fn next_mark(&mut self) -> String {
        self.asked += 1;
        self.asked.to_string()
    }

    fn expect(&self, frames: &[crate::harness::Frame], number: &str) {
        assert_eq!(error(frames), None, "{}", self.mark);
        let rows = crate::harness::frames::rows(frames);
        let expected = [
            Some(format!("{}/{number}", self.mark)),
            Some(self.role.clone()),
        ];
        for row in &rows {
            assert_eq!(row[..], expected, "an answer for someone else");
        }
        assert!(!rows.is_empty(), "{}: {frames:?}", self.mark);
    }

    fn simple(&mut self) {
        let number = self.next_mark();
        let frames = self
            .client
            .query(&format!("select '{}/{number}', current_user", self.mark));
        self.expect(&frames, &number);
    }

    fn prepared(&mut self) {
        let number = self.next_mark();
        let frames = self
            .client
            .ask(&Request::new().run_prepared("own", &[&number]).sync());
        self.expect(&frames, &number);
        let mark = self.mark.clone();
        let frames = self.client.ask(
            &Request::new()
                .run_prepared("shared", &[&mark, &number])
                .sync(),
        );
        self.expect(&frames, &number);
    }

    fn pipeline(&mut self) {
        let numbers: Vec<_> = (0..10).map(|_| self.next_mark()).collect();
        let mut request = Request::new();
        for number in &numbers {
            request = request.run_prepared("own", &[number]).sync();
        }
        self.client.send(&request);
        for number in &numbers {
            let frames = self.client.until_ready();
            self.expect(&frames, number);
        }
    }

    fn transaction(&mut self, ends_well: bool) {
        self.client
            .exec(&format!("begin; set local app.mark = '{}'", self.mark));
        self.prepared();
        assert_eq!(
            self.client.value("select current_setting('app.mark')"),
            self.mark
        );
        if ends_well {
            self.client.exec("commit");
        } else {
            assert_eq!(self.client.fails("select 1/0").code(), "22012");
            self.client.exec("rollback");
        }
    }

    fn session(&mut self) {
        assert_eq!(
            self.client.value("select current_setting('app.tenant_id')"),
            self.tenant
        );
        self.client
            .exec(&format!("set application_name = '{}'", self.mark));
        assert_eq!(self.client.value("show application_name"), self.mark);
    }

    fn big(&mut self) {
        let sql = format!("select repeat('{} ', 20000)", self.mark);
        let value = self.client.value(&sql);
        assert!(value.split_whitespace().all(|word| word == self.mark));
    }

    fn cancel(&mut self) {
        self.client
            .send(&Request::new().query(&format!("select '{}', pg_sleep(0.05)", self.mark)));
        self.connect.cancel(&self.client);
        let frames = self.client.until_ready();
        match code(&frames).as_str() {
            "" => assert_eq!(firsts(&frames), [self.mark.as_str()]),
            code => assert_eq!(code, "57014"),
        }
        // A cancel that comes late may still hit the next statement, as with PostgreSQL itself.
        let _late = self.client.query("select 1");
    }

    fn come_again(&mut self, dice: &mut Dice) {
        let mut old = std::mem::replace(&mut self.client, self.connect.login());
        match dice.roll(4) {
            0 => old.send(&Request::new().terminate()),
            1 => old.reset(),
            2 => {
                old.send(&Request::new().query("begin; select pg_sleep(5)"));
                old.reset();
            }
            _ => old.send(&Request::new().run_prepared("own", &["never read"])),
        }
        self.prepare();
    }

    fn act(&mut self, dice: &mut Dice) {
        match dice.roll(20) {
            0..6 => self.simple(),
            6..11 => self.prepared(),
            11..13 => self.pipeline(),
            13..15 => self.transaction(true),
            15 => self.transaction(false),
            16 => self.session(),
            17 => self.big(),
            18 => self.cancel(),
            _ => self.come_again(dice),
        }
    }
}

fn storm(mode: Mode, clients: usize, servers: u32) {
    let ids = ["one", "two", "three", "four"];
    let tenant = |id: &&str| {
        let place = Postgres::shared().place();
        let tenant = Tenant::new(id, &place).mode(mode).pool_size(servers);
        tenant
            .set("tenant_setting", "app.tenant_id")
            .set("max_prepared_statements", 5)
    };
    let mut proxy = Proxy::of(ids.iter().map(tenant)).start();
    let callers: Vec<_> = thread::scope(|scope| {
        let proxy = &proxy;
        let enter =
            |number: usize| scope.spawn(move || Caller::new(proxy, ids[number % 4], number));
        let threads: Vec<_> = (0..clients).map(enter).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a login"))
            .collect()
    });
    let end = Instant::now() + STORM;
    let act = |(number, mut caller): (usize, Caller)| {
        let mut dice = Dice(u32::try_from(number * 7919 + 1).unwrap());
        while Instant::now() < end || caller.asked < ASKED_MIN {
            caller.act(&mut dice);
        }
        caller.asked
    };
    let asked: u32 = thread::scope(|scope| {
        let numbered = callers.into_iter().enumerate();
        let threads: Vec<_> = numbered
            .map(|caller| scope.spawn(move || act(caller)))
            .collect();
        let asked =
            |thread: thread::ScopedJoinHandle<'_, u32>| thread.join().expect("its own answers");
        threads.into_iter().map(asked).sum()
    });
    assert!(asked as usize >= clients * ASKED_MIN as usize);
    assert!(proxy.is_alive());
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
}

#[test]
fn every_answer_carries_its_callers_mark_in_transaction_mode() {
    storm(Mode::Transaction, 32, 3);
}

#[test]
fn every_answer_carries_its_callers_mark_in_session_mode() {
    storm(Mode::Session, 16, 5);
}

#[test]
fn many_clients_share_few_servers() {
    let place = Postgres::shared().place();
    let proxy = Proxy::of([Tenant::new("acme", &place).pool_size(2)]).start();
    thread::scope(|scope| {
        for number in 0..50 {
            let connect = proxy.connect("acme");
            scope.spawn(move || {
                let mut client = connect.login();
                for round in 0..20 {
                    assert_eq!(
                        client.value(&format!("select '{number} {round}'")),
                        format!("{number} {round}")
                    );
                }
            });
        }
    });
    let mut admin = place.admin();
    assert!(place.server_pids(&mut admin).len() <= 2);
}

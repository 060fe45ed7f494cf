//! PostgreSQL locks before it checks: who uses that to hold up others is ended.

use crate::harness::{
    Client, Connect, Postgres, Proxy, ProxyFile, Request, eventually, office::Office,
};
use std::fs;

/// The application's tables, as templates.
const TEMPLATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/demo/templates");

/// What every login of the cluster reads.
const RULE: &str = "create rule held as on insert to pg_catalog.pg_authid do nothing";

/// A cluster of its own, where what holds up one test holds up no other, and a proxy.
struct Site {
    proxy: Proxy,
    office: Office,
    postgres: Postgres,
}

impl Site {
    fn new(penalty: &str) -> Self {
        Self::watched("100ms", penalty)
    }

    fn watched(interval: &str, penalty: &str) -> Self {
        let mut postgres = Postgres::start();
        // Slots need it so.
        let off = "alter system set max_prepared_transactions = 0";
        postgres.admin().exec(off);
        postgres.stop();
        postgres.run();
        let office = Office::new(Postgres::shared().endpoint());
        let file = office.path().join("proxy.toml");
        let text = fs::read_to_string(&file).unwrap();
        let text = format!("{text}[templates]\ndirectory = \"{TEMPLATES}\"\n");
        fs::write(&file, text).unwrap();
        office.add_cluster("main", postgres.endpoint(), &[]);
        let key = fs::read_to_string(office.path().join("master.key")).unwrap();
        let proxy = Proxy::with(ProxyFile::bare())
            .registry(&office.url(), &key)
            .set_registry("lock_watch_interval", interval)
            .set_registry("lock_watch_penalty", penalty);
        Self {
            proxy: proxy.start(),
            office,
            postgres,
        }
    }

    fn tenant(&self, id: &str, options: &[&str]) -> Connect {
        let create = ["tenant", "create", id];
        let made = self.office.json(&[&create, options].concat());
        let key = made["key"]["key"].as_str().unwrap();
        Connect::to(self.proxy.address()).user(id).password(key)
    }

    /// A tenant that holds up its own statement, so that it waits in front of everybody.
    fn attacker(&self, tier: &str) -> (Connect, Client) {
        let attacker = self.tenant("mallory", &["--tier", tier]);
        let mut holder = attacker.login();
        holder.exec("begin");
        holder.exec("select count(*) from pg_catalog.pg_roles");
        (attacker, holder)
    }

    fn history(&self, id: &str) -> Vec<String> {
        let history = self.office.json(&["tenant", "history", id]);
        let events = history.as_array().unwrap().iter();
        let kind = |event: &serde_json::Value| event["kind"].as_str().unwrap().to_owned();
        events.map(kind).collect()
    }
}

/// Says it and does not wait for the answer.
fn say(client: &mut Client, sql: &str) {
    client.send(&Request::new().query(sql));
}

/// Does something on a connection that PostgreSQL makes for it.
fn comes_and_works(tenant: &Connect) {
    let mut client = tenant.login();
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn a_tenant_that_has_every_login_wait_is_ended_with_57p01() {
    let site = Site::new("0s");
    let victim = site.tenant("acme", &["--tier", "database"]);
    let (attacker, mut holder) = site.attacker("database");
    let mut waiter = attacker.login();
    say(&mut waiter, RULE);
    waiter.ends_with("57P01");
    comes_and_works(&victim);
    // It did nothing but read.
    holder.exec("commit");
    eventually("it stands in the tenant's history", || {
        site.history("mallory")
            .contains(&"ResourceLimitExceeded".to_owned())
    });
    assert!(
        !site
            .history("acme")
            .contains(&"ResourceLimitExceeded".to_owned())
    );
}

#[test]
fn who_has_got_the_lock_and_waits_for_its_own_is_ended_too() {
    let site = Site::new("0s");
    let victim = site.tenant("acme", &["--tier", "schema"]);
    let attacker = site.tenant("mallory", &["--tier", "schema"]);
    let mut holder = attacker.login();
    holder.exec("create table mine (a int)");
    holder.exec("begin");
    holder.exec("begin; lock table mine");
    let mut waiter = attacker.login();
    // Where it is locked, what the rule does is looked up, and only then who may make one.
    let rule = RULE.replace("do nothing", "do also insert into mine values (1)");
    say(&mut waiter, &rule);
    waiter.ends_with("57P01");
    comes_and_works(&victim);
    holder.exec("commit");
}

#[test]
fn who_catches_the_cancel_is_ended_all_the_same() {
    let site = Site::new("0s");
    let victim = site.tenant("acme", &["--tier", "database"]);
    let (attacker, holder) = site.attacker("database");
    let mut waiter = attacker.login();
    let pid = waiter.server_pid();
    say(
        &mut waiter,
        &format!(
            "do $$ begin loop begin execute '{RULE}'; \
             exception when query_canceled or insufficient_privilege then null; end; end loop; end $$"
        ),
    );
    let is_there =
        format!("select count(*) from pg_stat_get_activity({pid}) where pid is not null");
    let mut admin = site.postgres.admin();
    eventually("its process is gone", || admin.value(&is_there) == "0");
    waiter.ends_with("57P01");
    comes_and_works(&victim);
    drop(holder);
}

#[test]
fn who_does_it_again_is_kept_out_for_a_while_and_nobody_else() {
    let site = Site::new("3s");
    let victim = site.tenant("acme", &["--tier", "schema"]);
    let (attacker, mut holder) = site.attacker("schema");
    let mut resting = attacker.login();
    resting.exec("select 1");
    let mut waiter = attacker.login();
    say(&mut waiter, RULE);
    waiter.ends_with("57P01");
    // Once is forgiven.
    holder.exec("select 1");
    let mut waiter = attacker.login();
    say(&mut waiter, RULE);
    waiter.ends_with("57P01");
    holder.ends_with("57P01");
    let told = resting.ends_with("57P01");
    assert!(
        format!("{told:?}").contains("with other tenants"),
        "{told:?}"
    );
    let refused = attacker.refused();
    assert_eq!(refused.code(), "53400", "{refused:?}");
    assert!(
        format!("{refused:?}").contains("Try again in"),
        "{refused:?}"
    );
    comes_and_works(&victim);
    eventually("it may come again", || attacker.try_login().is_ok());
}

#[test]
fn a_lock_on_a_view_of_all_row_tenants_keeps_nobody_waiting() {
    let site = Site::new("0s");
    for (number, variant) in ["own", "shared"].into_iter().enumerate() {
        let name = |who: &str| format!("{who}-{number}");
        let options = ["--tier", "row", "--variant", variant];
        let victim = site.tenant(&name("acme"), &options);
        let attacker = site.tenant(&name("mallory"), &options);
        let mut victim = victim.login();
        victim.exec("insert into accounts (id, secret) values (1, 'mine')");
        let mut holder = attacker.login();
        holder.exec("begin");
        holder.exec("select * from accounts");
        let mut waiter = attacker.login();
        say(&mut waiter, "begin; lock table accounts");
        assert_eq!(victim.value("select secret from accounts"), "mine");
        waiter.ends_with("57P01");
        assert_eq!(victim.value("select secret from accounts"), "mine");
        holder.exec("commit");
    }
}

#[test]
fn what_is_the_tenants_own_or_the_operators_may_wait_as_long_as_it_likes() {
    let site = Site::new("0s");
    let tenant = site.tenant("acme", &["--tier", "schema"]);
    let row = site.tenant("rows", &["--tier", "row"]);
    let (mut holder, mut waiter) = (tenant.login(), tenant.login());
    holder.exec("create table mine (a int)");
    holder.exec("begin");
    holder.exec("select * from mine");
    say(&mut waiter, "alter table mine add column b int");
    let mut reader = row.login();
    reader.exec("begin");
    reader.exec("select * from accounts");
    let mut operator = site.postgres.endpoint().admin_of("pgusher_rows");
    say(&mut operator, "begin; lock table data.accounts");
    let mut admin = site.postgres.admin();
    let waiting =
        "select count(*) from pg_locks where not granted and mode = 'AccessExclusiveLock'";
    eventually("both wait", || admin.value(waiting) == "2");
    // Twenty looks later.
    let looks = "select distinct query_start::text from pg_stat_activity \
                 where query like '%pg_lock_status%' and pid <> pg_backend_pid()";
    let mut seen = std::collections::BTreeSet::new();
    eventually("it is looked often", || {
        seen.extend(admin.values(looks));
        seen.len() > 20
    });
    assert_eq!(admin.value(waiting), "2");
    holder.exec("commit");
    reader.exec("commit");
    waiter.until_ready();
    operator.until_ready();
    operator.exec("commit");
    assert_eq!(holder.value("select count(b) from mine"), "0");
}

#[test]
fn a_process_that_no_proxy_knows_any_more_is_ended_by_its_role() {
    let site = Site::new("0s");
    let victim = site.tenant("acme", &["--tier", "schema"]);
    site.tenant("mallory", &["--tier", "schema"]);
    let role = "select role from pgusher.tenant where id = 'mallory'";
    let role = site.office.admin().value(role);
    let mut admin = site.postgres.admin();
    let mut holder = site.postgres.admin();
    holder.exec("begin");
    holder.exec("select count(*) from pg_class");
    admin.exec(&format!("alter role {role} password 'known'"));
    let direct = Connect::to(site.postgres.endpoint().address());
    let direct = direct
        .user(&role)
        .password("known")
        .database("pgusher_schemas");
    let mut here = site.postgres.endpoint().admin_of("pgusher_schemas");
    here.exec("begin");
    here.exec("select count(*) from pg_class");
    let mut waiter = direct.login();
    say(
        &mut waiter,
        "create rule held as on insert to pg_class do nothing",
    );
    waiter.ends_with("57P01");
    comes_and_works(&victim);
    here.exec("commit");
    holder.exec("commit");
}

#[test]
fn what_ignores_its_cancel_does_not_outlive_its_client() {
    let site = Site::new("0s");
    let own = site.tenant("acme", &["--tier", "schema"]);
    let slot = site.tenant("many", &["--tier", "row", "--variant", "shared"]);
    for tenant in [own, slot] {
        let mut client = tenant.login();
        let pid = client.server_pid();
        say(
            &mut client,
            "do $$ begin loop begin perform pg_sleep(60); \
             exception when query_canceled then null; end; end loop; end $$",
        );
        let state = format!("select state from pg_stat_get_activity({pid})");
        let mut admin = site.postgres.admin();
        eventually("it runs", || admin.value(&state) == "active");
        drop(client);
        let is_there =
            format!("select count(*) from pg_stat_get_activity({pid}) where pid is not null");
        eventually("its process is gone", || admin.value(&is_there) == "0");
    }
}

#[test]
fn a_tenant_of_slots_is_kept_out_like_any_other() {
    let site = Site::new("10m");
    let slots = ["--tier", "row", "--variant", "shared"];
    let (victim, attacker) = (site.tenant("acme", &slots), site.tenant("mallory", &slots));
    let mut holder = attacker.login();
    holder.exec("begin");
    holder.exec("select * from accounts");
    for _ in 0..2 {
        let mut waiter = attacker.login();
        say(&mut waiter, "begin; lock table accounts");
        waiter.ends_with("57P01");
    }
    holder.ends_with("57P01");
    assert_eq!(attacker.refused().code(), "53400");
    comes_and_works(&victim);
}

#[test]
fn without_the_watch_it_would_be_so() {
    let site = Site::watched("0s", "0s");
    let (attacker, mut holder) = site.attacker("database");
    let mut waiter = attacker.login();
    // Who is not in by now waits.
    let mut admin = site.postgres.admin();
    say(&mut waiter, RULE);
    // PostgreSQL needs what is waited for to tell who waits, so only the lock is asked for.
    let waits = "select count(*) from pg_lock_status() where relation = 1260 and not granted";
    eventually("it waits", || admin.value(waits) != "0");
    let stranger = Connect::to(site.postgres.endpoint().address()).user("nobody");
    let login = std::thread::spawn(move || stranger.try_login().is_err());
    let two = "select count(*) > 1 from pg_lock_status() where relation = 1260 and not granted";
    eventually("a login waits behind it", || admin.value(two) == "t");
    holder.exec("rollback");
    assert!(login.join().unwrap(), "there is nobody");
    let frames = waiter.until_ready();
    assert!(format!("{frames:?}").contains("42501"), "{frames:?}");
}

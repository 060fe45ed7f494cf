//! Hot standbys of a cluster: who is suspended is ended there, too.

use crate::harness::{
    Connect, Postgres, eventually, eventually_some, frames, office::Office, postgres::ADMIN,
};

#[test]
fn a_suspended_tenant_is_ended_at_the_replicas_too() {
    let primary = Postgres::start();
    let mut standby = primary.standby();
    let office = Office::new(Postgres::shared().endpoint());
    let urls = [primary.endpoint().url(), standby.endpoint().url()];
    let add = ["cluster", "add", "main", "--primary", &urls[0]];
    let more = ["--replica", &urls[1], "--admin-role", ADMIN];
    office.run(&[&add[..], &more].concat()).succeeded();
    office.json(&["tenant", "create", "acme", "--tier", "schema"]);
    let field = |name: &str| {
        let sql = format!("select {name} from pgusher.tenant where id = 'acme'");
        office.admin().value(&sql)
    };
    let role = field("role");
    let known = format!("alter role {role} password 'known'");
    primary.admin().exec(&known);
    let connect = Connect::to(standby.endpoint().address())
        .user(&role)
        .database(&field("database_name"))
        .password("known");
    let log_in = || eventually_some("the standby lets it in", || connect.try_login().ok());
    let mut session = log_in();
    assert_eq!(session.value("select pg_is_in_recovery()"), "t");
    let mut busy = log_in();
    busy.exec("begin; select 1");

    let suspend = ["tenant", "suspend", "acme"];
    office.run(&suspend).succeeded();
    session.ends_with("57P01");
    busy.ends_with("57P01");
    let refused = connect.try_login().err().expect("nobody comes back");
    assert_eq!(frames::code(&refused), "28000");
    office.run(&["tenant", "resume", "acme"]).succeeded();
    log_in().is_in_step();

    // Paused: it does not hear of it, and that is said; the sessions end all the same.
    standby.admin().exec("select pg_wal_replay_pause()");
    let mut paused = standby.admin();
    eventually("it is paused", || {
        paused.value("select pg_get_wal_replay_pause_state()") == "paused"
    });
    let mut session = log_in();
    let told = office.run(&suspend);
    assert!(!told.is_success, "{}", told.out);
    assert!(
        told.err.contains("it has not heard within 15s"),
        "{}",
        told.err
    );
    session.ends_with("57P01");
    paused.exec("select pg_wal_replay_resume()");
    office.run(&suspend).succeeded();

    drop(paused);
    standby.kill();
    let told = office.run(&suspend);
    assert!(!told.is_success, "{}", told.out);
    let address = format!("127.0.0.1:{}", standby.endpoint().port());
    for part in ["is suspended, but a replica", &address] {
        assert!(told.err.contains(part), "{part} in {}", told.err);
    }
    assert_eq!(field("status"), "suspended");
    // A replica that is gone for good does not keep a tenant.
    let delete = ["tenant", "delete", "acme", "--grace", "0s"];
    office.run(&delete).succeeded();
}

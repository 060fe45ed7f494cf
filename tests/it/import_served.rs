//! Imported tenants, from the import to the rows that their clients read; and what becomes of them.

use super::import_registry::{FINERACT, MASTER, ULTRACORE, by_fineract, by_ultracore};
use crate::harness::{
    Client, Connect, Place, Postgres, Proxy,
    estate::{Estate, ground},
    eventually_some,
    place::ROLE_PASSWORD,
};
use serde_json::{Value, json};
use sha2::Digest;
use std::{fs, sync::atomic::AtomicU32};

/// An operator's desk, a proxy that serves its registry, and the other system's store.
struct Move {
    estate: Estate,
    proxy: Proxy,
    store: Client,
    store_url: String,
}

impl Move {
    fn new(tables: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let estate = Estate::new();
        let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let database = format!("old_store_{next}");
        let endpoint = Postgres::shared().endpoint();
        endpoint
            .admin()
            .exec(&format!("create database {database}"));
        let mut store = endpoint.admin_of(&database);
        store.exec(tables);
        fs::write(estate.office.path().join("master"), MASTER).unwrap();
        let proxy = estate.office.serve();
        let store_url = format!("postgres://admin@127.0.0.1:{}/{database}", endpoint.port());
        Self {
            estate,
            proxy,
            store,
            store_url,
        }
    }

    /// The tenants of the answer.
    fn import(&self, what: &str) -> Vec<Value> {
        let arguments = ["import", what, "--from", &self.store_url];
        let master = ["--master-password-file", "master"];
        let report = self.estate.office.json(&[&arguments[..], &master].concat());
        report["tenants"].as_array().unwrap().clone()
    }

    fn connect(&self, tenant: &str, key: &Value) -> Connect {
        Connect::to(self.proxy.address())
            .user(tenant)
            .password(key.as_str().unwrap())
    }

    /// The proxy is told of changes; how soon is not this test's question.
    fn login(&self, tenant: &str, key: &Value) -> Client {
        let connect = self.connect(tenant, key);
        eventually_some("the tenant logs in", || connect.try_login().ok())
    }

    /// It is refused from now on, or soon, with this code.
    fn is_refused(&self, tenant: &str, key: &Value, code: &str) {
        let connect = self.connect(tenant, key);
        eventually_some("the tenant is refused", || {
            let frames = connect.try_login().err()?;
            (crate::harness::frames::code(&frames) == code).then_some(())
        });
    }
}

fn tenant<'a>(tenants: &'a [Value], id: &str) -> &'a Value {
    let found = tenants.iter().find(|tenant| tenant["id"] == id);
    let found = found.unwrap_or_else(|| panic!("no {id} in {tenants:#?}"));
    assert_eq!(found["outcome"], "written", "{found}");
    found
}

/// A database as Fineract has it, and the role that only reads.
fn loans(owner: &str) -> (Place, String) {
    let place = ground().database();
    let reader = place.add_reader();
    let mut client = place.direct().login();
    client.exec(&format!(
        "grant usage on schema public to {reader}; create table m_loan (id int primary key, owner text); insert into m_loan values (1, '{owner}')"
    ));
    (place, reader)
}

fn fineract() -> (Move, [(Place, String); 2]) {
    let mut all = Move::new(FINERACT);
    let places = [loans("one"), loans("two")];
    let port = ground().endpoint().port();
    for (number, (place, reader)) in places.iter().enumerate() {
        let (password, database, role) = (
            by_fineract(MASTER, ROLE_PASSWORD),
            place.database_name(),
            place.role(),
        );
        let id = number + 1;
        all.store.exec(&format!(
            "insert into tenant_server_connections (id, schema_server, schema_name, schema_server_port, \
             schema_username, schema_password, readonly_schema_username, readonly_schema_password, \
             pool_max_active, master_password_hash) values \
             ({id}, 'localhost', '{database}', '{port}', '{role}', '{password}', '{reader}', '{password}', 3, '$2a$10$x'); \
             insert into tenants (identifier, name, timezone_id, oltp_id, report_id) values \
             ('bank-{id}', 'Bank {id}', 'Asia/Kolkata', {id}, {id})"
        ));
    }
    (all, places)
}

#[test]
fn fineracts_clients_read_their_rows_with_the_keys_that_the_import_printed() {
    let (all, places) = fineract();
    let tenants = all.import("fineract");
    for (id, secret, (place, reader)) in
        [("bank-1", "one", &places[0]), ("bank-2", "two", &places[1])]
    {
        let told = tenant(&tenants, id);
        let mut client = all.login(id, &told["key"]);
        assert_eq!(client.value("select owner from m_loan"), secret);
        client.exec("insert into m_loan values (2, 'new')");
        assert_eq!(client.value("select current_user"), place.role());
        assert_eq!(client.value("show timezone"), "Asia/Kolkata");
        let mut client = all.login(id, &told["read_only_key"]);
        assert_eq!(client.value("select count(*) from m_loan"), "2");
        assert_eq!(client.value("select current_user"), *reader);
        // A key that only reads begins transactions that only read; the role could not write either.
        assert_eq!(client.fails("delete from m_loan").code(), "25006");
        let writable = "begin read write; delete from m_loan";
        assert_eq!(client.fails(writable).code(), "42501");
        let url = told["url"].as_str().unwrap();
        assert!(url.starts_with(&format!("postgres://{id}:")), "{url}");
    }
    let other = &tenant(&tenants, "bank-2")["key"];
    assert_eq!(all.connect("bank-1", other).refused().code(), "28P01");
    assert_eq!(
        all.connect("bank-1", &json!(ROLE_PASSWORD))
            .refused()
            .code(),
        "28P01"
    );
}

/// One tenant with a database of its own, one in a shared one, one of those suspended.
fn ultracore() -> (Move, Place, [Place; 2]) {
    let mut all = Move::new(ULTRACORE);
    let own = ground().database();
    own.direct()
        .login()
        .exec("create table positions (owner text); insert into positions values ('own')");
    let shared = [ground().schema(), ground().schema()];
    for (place, owner) in shared.iter().zip(["first", "second"]) {
        let schema = place.schema_name().unwrap();
        place.direct().login().exec(&format!(
            "create table {schema}.positions (owner text); insert into {schema}.positions values ('{owner}')"
        ));
    }
    let hash = sha2::Sha256::digest(MASTER);
    let hash = hash
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let port = ground().endpoint().port();
    for (id, tier, status, place) in [
        ("enterprise-001", "enterprise", "active", &own),
        ("standard-002", "standard", "active", &shared[0]),
        ("standard-003", "standard", "suspended", &shared[1]),
    ] {
        let password = by_ultracore(MASTER, ROLE_PASSWORD);
        let (database, role) = (place.database_name(), place.role());
        let schema = place
            .schema_name()
            .map_or("null".to_owned(), |name| format!("'{name}'"));
        all.store.exec(&format!(
            "insert into tenant_configs (tenant_id, tenant_name, tier, status, owner_email, db_host, db_port, \
             db_name, db_username, db_password_encrypted, schema_name, max_connections, master_password_hash) \
             values ('{id}', 'T', '{tier}', '{status}', 'x@x.org', '127.0.0.1', {port}, '{database}', '{role}', \
             '{password}', {schema}, 4, '{hash}')"
        ));
    }
    (all, own, shared)
}

#[test]
fn ultracores_clients_read_their_rows_and_who_was_suspended_still_is() {
    let (all, own, shared) = ultracore();
    let tenants = all.import("ultracore");
    for (id, secret, place) in [
        ("enterprise-001", "own", &own),
        ("standard-002", "first", &shared[0]),
    ] {
        let mut client = all.login(id, &tenant(&tenants, id)["key"]);
        assert_eq!(client.value("select owner from positions"), secret);
        assert_eq!(client.value("select current_user"), place.role());
    }
    let (id, role) = ("standard-003", shared[1].role());
    let key = &tenant(&tenants, id)["key"];
    all.is_refused(id, key, "28000");
    all.estate.office.run(&["tenant", "resume", id]).succeeded();
    let mut client = all.login(id, key);
    assert_eq!(client.value("select owner from positions"), "second");
    assert_eq!(client.value("select current_user"), role);
}

#[test]
fn an_imported_tenant_is_suspended_and_deleted_without_a_change_of_what_pgusher_did_not_make() {
    let (all, [(place, _), (other, _)]) = fineract();
    let tenants = all.import("fineract");
    let key = &tenant(&tenants, "bank-1")["key"];
    let mut client = all.login("bank-1", key);
    let office = &all.estate.office;
    office
        .run(&["tenant", "suspend", "bank-1", "--reason", "unpaid"])
        .succeeded();
    client.ends_with("57P01");
    all.is_refused("bank-1", key, "28000");
    // Its role may be another application's, too.
    place.direct().login().is_in_step();
    office.run(&["tenant", "resume", "bank-1"]).succeeded();
    all.login("bank-1", key).is_in_step();

    for command in ["rotate-password", "verify"] {
        let told = all.estate.fails(&["tenant", command, "bank-1"]);
        assert!(told.contains("was imported"), "{told}");
    }
    place.direct().login().is_in_step();
    assert!(
        !all.estate
            .events("bank-1")
            .contains(&"PasswordRotationStarted".to_owned())
    );

    let ended = office
        .run(&["tenant", "delete", "bank-1", "--grace", "0s"])
        .succeeded();
    for part in ["is gone", place.database_name(), "stay as they are"] {
        assert!(ended.out.contains(part), "{part} in {}", ended.out);
    }
    all.is_refused("bank-1", key, "28P01");
    let mut still = place.direct().login();
    assert_eq!(still.value("select owner from m_loan"), "one");
    let removed = all.estate.registry().value(
        "select facts->>'left' from pgusher.event where tenant = 'bank-1' and kind = 'Removed'",
    );
    assert!(removed.contains("imported"), "{removed}");
    // It can be imported again, with new keys; the other one was never touched.
    let again = all.import("fineract");
    all.login("bank-1", &tenant(&again, "bank-1")["key"])
        .is_in_step();
    let mut second = all.login("bank-2", &tenant(&tenants, "bank-2")["key"]);
    assert_eq!(second.value("select current_user"), other.role());
}

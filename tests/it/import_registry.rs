//! From the tables of Fineract and UltraCore into the registry.

use crate::harness::{Client, Postgres, office::Office, programs::Run, scram};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, aead::Aead};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use cbc::cipher::{BlockModeEncrypt, KeyIvInit, block_padding::Pkcs7};
use pgusher::crypto::{KeySource, Purpose, Sealed};
use serde_json::Value;
use sha2::Digest;
use std::fs;

pub(super) const MASTER: &str = "the master's";

/// As Fineract seals: IV, salt, AES-256-CBC.
pub(super) fn by_fineract(master: &str, password: &str) -> String {
    let (iv, salt): ([u8; 16], [u8; 16]) = (rand::random(), rand::random());
    let key = pbkdf2::pbkdf2_hmac_array::<sha1::Sha1, 32>(master.as_bytes(), &salt, 65_536);
    let cipher = cbc::Encryptor::<aes::Aes256>::new_from_slices(&key, &iv).unwrap();
    let mut body = password.as_bytes().to_vec();
    let length = body.len();
    body.resize(length / 16 * 16 + 16, 0);
    cipher.encrypt_padded::<Pkcs7>(&mut body, length).unwrap();
    STANDARD.encode([&iv[..], &salt, &body].concat())
}

/// As UltraCore seals: nonce, AES-256-GCM.
pub(super) fn by_ultracore(master: &str, password: &str) -> String {
    let salt = b"ultracore_multitenancy_salt_v1";
    let key = pbkdf2::pbkdf2_hmac_array::<sha2::Sha256, 32>(master.as_bytes(), salt, 100_000);
    let nonce: [u8; 12] = rand::random();
    let cipher = Aes256Gcm::new(&key.into());
    let sealed = cipher
        .encrypt(&Nonce::from(nonce), password.as_bytes())
        .unwrap();
    STANDARD.encode([&nonce[..], &sealed].concat())
}

/// An office whose registry has clusters, and another system's store beside it.
struct Move {
    office: Office,
    store: Client,
    store_url: String,
}

impl Move {
    fn new(tables: &str) -> Self {
        let office = Office::new(Postgres::shared().endpoint());
        office.run(&["secrets", "rotate"]).succeeded();
        office.admin().exec(
            "insert into pgusher.cluster (name, primary_url, replica_urls, admin_role) values \
             ('main', 'postgres://db.bank:5432', '{postgres://ro.bank:5432?weight=2}', 'a'), \
             ('own', 'postgres://127.0.0.1:5444', '{}', 'a')",
        );
        let store_url = office.url().replace("registry_", "store_");
        let database = store_url.rsplit('/').next().unwrap();
        let endpoint = Postgres::shared().endpoint();
        endpoint
            .admin()
            .exec(&format!("create database {database}"));
        let mut store = endpoint.admin_of(database);
        store.exec(tables);
        fs::write(office.path().join("master"), format!("{MASTER}\n")).unwrap();
        fs::write(office.path().join("wrong"), "another").unwrap();
        Self {
            office,
            store,
            store_url,
        }
    }

    fn run(&self, what: &str, more: &[&str]) -> Run {
        let arguments = ["import", what, "--from", &self.store_url];
        self.office.run(&[&arguments, more].concat())
    }

    /// With the right master password, as JSON; the tenants of the answer.
    fn import(&self, what: &str, more: &[&str]) -> Value {
        let arguments = ["--master-password-file", "master", "--json"];
        let run = self.run(what, &[&arguments, more].concat()).succeeded();
        serde_json::from_str(&run.out).unwrap()
    }

    fn count(&self) -> String {
        let sql = "select (select count(*) from pgusher.tenant) + (select count(*) from pgusher.api_key) \
                   + (select count(*) from pgusher.event where kind = 'TenantCreated')";
        self.office.admin().value(sql)
    }

    fn value(&self, sql: &str) -> String {
        self.office.admin().value(sql)
    }

    /// A password of a tenant, opened with the registry's keyring.
    fn password(&self, id: &str, what: &str) -> String {
        let sealed = self.value(&format!(
            "select encode({what}, 'base64') from pgusher.tenant where id = '{id}'"
        ));
        let sealed = STANDARD.decode(sealed.replace('\n', "")).unwrap();
        let keyring = KeySource::File(self.office.path().join("master.key"))
            .load()
            .unwrap();
        let owner = format!("tenant:{id}");
        let purpose = Purpose {
            owner: &owner,
            what,
        };
        String::from_utf8(keyring.open(purpose, Sealed(&sealed)).unwrap().to_vec()).unwrap()
    }

    /// Whether a key opens the tenant: by its stored verifier and by its hash.
    fn opens(&self, id: &str, key: &str, scope: &str) -> bool {
        let sql = format!(
            "select verifier from pgusher.api_key where tenant = '{id}' and scope = '{scope}'"
        );
        let verifier = self.value(&sql);
        let salt = verifier.split([':', '$']).nth(2).unwrap();
        let sql = format!(
            "select encode(scram_salt, 'base64') = '{salt}' and (select sha256 = sha256('{key}') from \
             pgusher.api_key where tenant = '{id}' and scope = '{scope}') from pgusher.tenant where id = '{id}'"
        );
        let salt = STANDARD.decode(salt).unwrap();
        scram::verifier(key, &salt) == verifier && self.value(&sql) == "t"
    }
}

fn row<'a>(report: &'a Value, id: &str) -> &'a Value {
    let tenants = report["tenants"].as_array().unwrap();
    let found = tenants.iter().find(|tenant| tenant["id"] == id);
    found.unwrap_or_else(|| panic!("no {id} in {report:#}"))
}

/// What Fineract's change sets make in PostgreSQL.
pub(super) const FINERACT: &str = "\
create table tenant_server_connections (id bigserial primary key, \
    schema_server varchar(100) not null default 'localhost', schema_name varchar(100) not null, \
    schema_server_port varchar(10) not null default '3306', schema_username varchar(100) not null default 'root', \
    schema_password varchar(255) not null default 'mysql', auto_update smallint not null default 1, \
    pool_initial_size int default 5, pool_validation_interval int default 30000, pool_max_active int default 40, \
    pool_min_idle int default 20, schema_connection_parameters text, readonly_schema_server varchar(100), \
    readonly_schema_name varchar(100), readonly_schema_server_port varchar(10), \
    readonly_schema_username varchar(100), readonly_schema_password varchar(255), \
    readonly_schema_connection_parameters text, master_password_hash varchar(255)); \
create table tenants (id bigserial primary key, identifier varchar(100) not null unique, name varchar(100) not null, \
    timezone_id varchar(100) not null, country_id int, joined_date date, created_date timestamp, \
    lastmodified_date timestamp, oltp_id bigint not null references tenant_server_connections, \
    report_id bigint not null references tenant_server_connections)";

/// Two tenants with sealed passwords, one of them with a role that reads, and one in plain text.
fn fineract() -> Move {
    let mut all = Move::new(FINERACT);
    let [one, reader, two] =
        ["pä'ss \"one\"", "reader's", "two"].map(|text| by_fineract(MASTER, text));
    all.store.exec(&format!(
        "insert into tenant_server_connections (id, schema_server, schema_name, schema_server_port, schema_username, \
         schema_password, auto_update, pool_initial_size, pool_max_active, schema_connection_parameters, \
         readonly_schema_server, readonly_schema_name, readonly_schema_server_port, readonly_schema_username, \
         readonly_schema_password, master_password_hash) values \
         (1, 'DB.bank', 'fineract_default', '5432', 'fin', '{one}', 1, 3, 33, \
          'currentSchema=fin&serverTimezone=UTC', 'ro.bank', 'fineract_default', '5432', 'fin_ro', '{reader}', '$2a$10$x'), \
         (2, 'localhost', 'second', '5444', 'two', '{two}', 0, 50, 40, null, null, null, null, null, null, '$2a$10$x'), \
         (3, '127.0.0.1', 'third', '5444', 'three', 'plain', 1, 5, 40, null, null, null, null, null, null, null); \
         insert into tenants (identifier, name, timezone_id, country_id, oltp_id, report_id) values \
         ('default', 'Demo Bank', 'Asia/Kolkata', 7, 1, 1), ('Second Bank', 'Second', 'IST9', null, 2, 2), \
         ('third', 'Third', 'UTC', null, 3, 3)"
    ));
    all
}

#[test]
fn fineracts_tenants_come_with_their_passwords_sealed_anew() {
    let all = fineract();
    let report = all.import("fineract", &[]);
    let default = row(&report, "default");
    assert_eq!(default["outcome"], "written");
    assert_eq!(
        default["old_url"],
        "jdbc:postgresql://DB.bank:5432/fineract_default"
    );
    let key = default["key"].as_str().unwrap();
    assert!(
        default["url"]
            .as_str()
            .unwrap()
            .contains(&format!("default:{key}@"))
    );
    assert!(all.opens("default", key, "read_write"));
    assert!(all.opens(
        "default",
        default["read_only_key"].as_str().unwrap(),
        "read_only"
    ));
    assert_eq!(row(&report, "second_bank")["read_only_key"], Value::Null);
    assert_eq!(all.password("default", "password"), "pä'ss \"one\"");
    assert_eq!(all.password("default", "read_only_password"), "reader's");
    assert_eq!(all.password("second_bank", "password"), "two");
    assert_eq!(all.password("third", "password"), "plain");
    let of = |id: &str| {
        all.value(&format!(
            "select concat_ws(' ', name, tier, status, cluster, database_name, role, read_only_role, pool_size, \
             min_pool_size, time_zone, auto_update, settings, metadata) from pgusher.tenant where id = '{id}'"
        ))
    };
    assert_eq!(
        of("default"),
        "Demo Bank database active main fineract_default fin fin_ro 33 3 Asia/Kolkata t \
         {\"search_path\": \"fin\"} {\"fineract\": {\"country_id\": 7}}"
    );
    assert_eq!(
        of("second_bank"),
        "Second database active own second two 40 40 f {} {}"
    );
    let event = all.value(
        "select concat_ws(' ', kind, facts, changes->'database_name'->>'after', changes ? 'password') \
         from pgusher.event where tenant = 'default'",
    );
    assert_eq!(
        event,
        "TenantCreated {\"imported\": \"fineract\"} fineract_default f"
    );
    let notes = report["notes"].to_string();
    for named in [
        "IST9",
        "serverTimezone",
        "ro.bank:5432 is a server of the cluster \\\"main\\\": any of its replicas answers",
        "pool_validation_interval",
        "out of bounds",
        "smallest pool",
    ] {
        assert_eq!(
            notes.contains(named),
            named != "out of bounds",
            "{named} in {notes}"
        );
    }
    let everything = all.value("select string_agg(e::text, '') from pgusher.event e");
    assert!(!everything.contains("reader's") && !everything.contains(key));
    all.office.run(&["audit", "verify"]).succeeded();
}

#[test]
fn an_import_can_be_run_again_and_refuses_what_has_changed() {
    let all = fineract();
    all.import("fineract", &[]);
    let before = all.count();
    let again = all.import("fineract", &[]);
    for id in ["default", "second_bank", "third"] {
        assert_eq!(row(&again, id)["outcome"], "there_already");
    }
    assert_eq!(all.count(), before);
    all.office.admin().exec("update pgusher.tenant set pool_size = 9, password = read_only_password where id = 'default'");
    let refused = all.run("fineract", &["--master-password-file", "master"]);
    assert!(!refused.is_success);
    assert!(
        refused.err.contains("refused") && refused.err.contains("default"),
        "{}",
        refused.err
    );
    assert!(
        refused.out.contains("there with other pool_size, password"),
        "{}",
        refused.out
    );
    assert!(!refused.err.contains("third"), "{}", refused.err);
    assert_eq!(all.count(), before);
}

#[test]
fn a_wrong_master_password_is_told_before_anything_is_written() {
    let all = fineract();
    let wrong = all.run("fineract", &["--master-password-file", "wrong"]);
    assert!(
        !wrong.is_success
            && wrong
                .err
                .contains("does not open with this master password"),
        "{}",
        wrong.err
    );
    let none = all.run("fineract", &[]);
    assert!(
        !none.is_success && none.err.contains("--master-password-file"),
        "{}",
        none.err
    );
    assert_eq!(all.count(), "0");
}

#[test]
fn a_dry_run_says_what_it_would_do_and_writes_nothing() {
    let all = fineract();
    let report = all.import("fineract", &["--dry-run"]);
    for id in ["default", "second_bank", "third"] {
        let tenant = row(&report, id);
        assert_eq!(
            (&tenant["outcome"], &tenant["key"]),
            (&"would_be_written".into(), &Value::Null)
        );
    }
    let table = all
        .run(
            "fineract",
            &["--dry-run", "--master-password-file", "master"],
        )
        .succeeded();
    assert!(
        table.out.contains("would be written")
            && table.out.contains("jdbc:postgresql://DB.bank:5432")
    );
    assert_eq!(all.count(), "0");
}

#[test]
fn a_server_that_is_no_cluster_is_refused_with_the_command_that_adds_it() {
    let mut all = fineract();
    all.store
        .exec("update tenant_server_connections set schema_server = 'else.where' where id = 3");
    let options = ["--master-password-file", "master"];
    let refused = all.run("fineract", &options);
    assert!(!refused.is_success);
    for part in [
        "\"third\"",
        "pgusher cluster add NAME --primary postgres://else.where:5444",
    ] {
        assert!(refused.err.contains(part), "{part} in {}", refused.err);
    }
    let proxy = all.office.path().join("proxy.toml");
    let text = fs::read_to_string(&proxy).unwrap();
    let cluster = "[[clusters]]\nname = \"else\"\nprimary = \"postgres://else.where:5444\"\n";
    fs::write(&proxy, text + cluster).unwrap();
    let refused = all.run("fineract", &options);
    assert!(
        refused.err.contains("pgusher cluster add else --primary"),
        "{}",
        refused.err
    );
    let unknown = all.run("fineract", &[&options[..], &["--cluster", "none"]].concat());
    assert!(
        unknown.err.contains("has no cluster \"none\""),
        "{}",
        unknown.err
    );
    assert_eq!(all.count(), "0");
    let report = all.import("fineract", &["--cluster", "main"]);
    assert_eq!(row(&report, "third")["cluster"], "main");
}

#[test]
fn two_identifiers_of_one_id_are_refused_before_anything_is_written() {
    let mut all = fineract();
    all.store.exec("insert into tenants (identifier, name, timezone_id, oltp_id, report_id) values ('Third', 'T', 'UTC', 3, 3)");
    let refused = all.run("fineract", &["--master-password-file", "master"]);
    assert!(!refused.is_success);
    assert!(
        refused.err.contains("\"third\"") && refused.err.contains("\"Third\""),
        "{}",
        refused.err
    );
    assert_eq!(all.count(), "0");
    let report = all.import("fineract", &["--id", "Third=third-2"]);
    assert_eq!(row(&report, "third-2")["outcome"], "written");
}

#[test]
fn a_connection_for_reports_becomes_the_login_that_reads() {
    let mut all = fineract();
    let reports = by_fineract(MASTER, "for reports");
    all.store.exec(&format!(
        "insert into tenant_server_connections (id, schema_server, schema_name, schema_server_port, schema_username, \
         schema_password, master_password_hash) values \
         (4, '127.0.0.1', 'third', '5444', 'reports', '{reports}', '$2a$10$x'), \
         (5, '127.0.0.1', 'elsewhere', '5444', 'reports', '{reports}', '$2a$10$x'), \
         (6, 'localhost', 'second', '5444', 'two', '{reports}', '$2a$10$x'); \
         update tenants set report_id = 4 where identifier = 'third'; \
         update tenants set report_id = 6 where identifier = 'Second Bank'; \
         insert into tenants (identifier, name, timezone_id, oltp_id, report_id) values ('four', 'F', 'UTC', 3, 5)"
    ));
    let report = all.import("fineract", &[]);
    assert_eq!(all.password("third", "read_only_password"), "for reports");
    let key = row(&report, "third")["read_only_key"].as_str().unwrap();
    assert!(all.opens("third", key, "read_only"));
    let readers = "select string_agg(id, ',') from pgusher.tenant where read_only_role is not null";
    assert_eq!(
        all.value(&format!("{readers} and id <> 'default'")),
        "third"
    );
    let notes = report["notes"].to_string();
    assert!(notes.contains("reads another database") && notes.contains("the role that writes"));
}

#[test]
fn another_store_is_told_without_its_password() {
    let all = Move::new("select 1");
    let refused = all.run("fineract", &[]);
    assert!(
        !refused.is_success && refused.err.contains("\"tenants\" does not exist"),
        "{}",
        refused.err
    );
    for from in [
        "mysql://root:hunter2@db/fineract_tenants",
        "postgres://a:hunter2@127.0.0.1:1/x",
        "postgres://a:hunter2@:::/x",
    ] {
        let refused = all.office.run(&["import", "ultracore", "--from", from]);
        assert!(!refused.is_success);
        assert!(!refused.err.contains("hunter2"), "{}", refused.err);
    }
}

/// As UltraCore's document has it.
pub(super) const ULTRACORE: &str = "\
create table tenant_configs (tenant_id varchar(100) primary key, tenant_name varchar(255) not null, \
    tier varchar(20) not null, status varchar(20) not null, owner_email varchar(255) not null, db_host varchar(255), \
    db_port integer, db_name varchar(255), db_username varchar(255), db_password_encrypted text, \
    schema_name varchar(255), readonly_db_host varchar(255), readonly_db_port integer, \
    readonly_db_username varchar(255), readonly_db_password_encrypted text, min_connections integer default 5, \
    max_connections integer default 20, connection_timeout_seconds integer default 30, \
    idle_timeout_seconds integer default 600, max_cpu_percent decimal(5,2) default 80.00, \
    max_concurrent_queries integer default 100, timezone varchar(50) default 'UTC', locale varchar(10) default 'en_US', \
    auto_update boolean default true, auto_scale boolean default false, master_password_hash varchar(255), \
    encryption_algorithm varchar(100) default 'AES-256-GCM', created_at timestamp, updated_at timestamp default now())";

fn ultracore() -> Move {
    let mut all = Move::new(ULTRACORE);
    let [one, reader, two] =
        ["pä'ss one", "reader's", "two"].map(|text| by_ultracore(MASTER, text));
    let hash = sha2::Sha256::digest(MASTER);
    let hash = hash
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    all.store.exec(&format!(
        "insert into tenant_configs (tenant_id, tenant_name, tier, status, owner_email, db_host, db_port, db_name, \
         db_username, db_password_encrypted, schema_name, readonly_db_host, readonly_db_port, readonly_db_username, \
         readonly_db_password_encrypted, min_connections, max_connections, idle_timeout_seconds, auto_update, \
         master_password_hash) values \
         ('enterprise-001', 'One', 'enterprise', 'active', 'one@x.org', 'db.bank', 5432, 'ultracore_enterprise_001', \
          'uc_enterpri', '{one}', null, 'ro.bank', 5432, 'uc_ro', '{reader}', 10, 50, 300, true, '{hash}'), \
         ('standard-002', 'Two', 'standard', 'suspended', 'two@x.org', 'db.bank', 5432, 'ultracore_shared', \
          'uc_standard', '{two}', null, null, null, null, null, 5, 20, 600, false, '{hash}'), \
         ('small-003', 'Three', 'small', 'active', 'three@x.org', 'db.bank', 5432, 'ultracore_shared', \
          null, null, null, null, null, null, null, 2, 10, 600, true, null), \
         ('gone-004', 'Four', 'small', 'terminated', 'four@x.org', null, null, null, \
          null, null, null, null, null, null, null, 2, 10, 600, true, null)"
    ));
    all
}

#[test]
fn ultracores_tenants_come_in_their_tiers_and_those_without_a_login_are_listed() {
    let all = ultracore();
    let report = all.import("ultracore", &[]);
    let one = row(&report, "enterprise-001");
    assert!(all.opens("enterprise-001", one["key"].as_str().unwrap(), "read_write"));
    let notes = report["notes"].to_string();
    let reads = "ro.bank:5432 is a server of the cluster \\\"main\\\": any of its replicas answers";
    assert!(notes.contains(reads), "{notes}");
    assert_eq!(all.password("enterprise-001", "password"), "pä'ss one");
    assert_eq!(
        all.password("enterprise-001", "read_only_password"),
        "reader's"
    );
    assert_eq!(all.password("standard-002", "password"), "two");
    let of = |id: &str| {
        all.value(&format!(
            "select concat_ws(' ', name, tier, status, owner_email, cluster, database_name, schema_name, role, \
             read_only_role, pool_size, min_pool_size, server_idle_timeout, query_wait_timeout, time_zone, auto_update, \
             metadata->'ultracore'->>'max_concurrent_queries') from pgusher.tenant where id = '{id}'"
        ))
    };
    assert_eq!(
        of("enterprise-001"),
        "One database active one@x.org main ultracore_enterprise_001 uc_enterpri uc_ro 50 10 300000 30000 UTC t 100"
    );
    assert_eq!(
        of("standard-002"),
        "Two schema suspended two@x.org main ultracore_shared tenant_standard_002 uc_standard 20 5 600000 30000 UTC f 100"
    );
    for (id, why) in [("small-003", "no db_username"), ("gone-004", "terminated")] {
        let left = row(&report, id);
        assert_eq!(left["outcome"], "left");
        assert!(left["why"].as_str().unwrap().contains(why), "{left}");
    }
    assert_eq!(all.value("select count(*) from pgusher.tenant"), "2");
    assert_eq!(
        row(&all.import("ultracore", &[]), "standard-002")["outcome"],
        "there_already"
    );
    let facts = all.value("select facts from pgusher.event where tenant = 'standard-002'");
    assert_eq!(facts, "{\"imported\": \"ultracore\"}");
}

#[test]
fn ultracores_master_password_is_compared_and_a_changed_secret_does_not_open() {
    let mut all = ultracore();
    let wrong = all.run("ultracore", &["--master-password-file", "wrong"]);
    assert!(
        !wrong.is_success && wrong.err.contains("another master password"),
        "{}",
        wrong.err
    );
    all.store.exec("update tenant_configs set db_password_encrypted = overlay(db_password_encrypted placing 'AAAA' from 21) where tenant_id = 'standard-002'");
    let changed = all.run("ultracore", &["--master-password-file", "master"]);
    assert!(
        !changed.is_success && changed.err.contains("does not open"),
        "{}",
        changed.err
    );
    assert!(
        changed.err.contains("nothing was written"),
        "{}",
        changed.err
    );
    assert_eq!(all.count(), "0");
}

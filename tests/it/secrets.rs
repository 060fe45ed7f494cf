//! Master keys: making one, and sealing everything anew.

use crate::harness::{Client, Postgres, office::Office};
use pgusher::crypto::{KeySource, Keyring, Purpose, Sealed};

/// The keys that the office has now.
fn keyring(office: &Office) -> Keyring {
    let file = office.path().join("master.key");
    KeySource::File(file).load().unwrap()
}

fn seal(office: &Office, owner: &str, what: &str, value: &str) -> String {
    let purpose = Purpose { owner, what };
    let sealed = keyring(office).seal(purpose, value.as_bytes()).unwrap();
    hex(&sealed)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::from("\\x"), |text, byte| {
        format!("{text}{byte:02x}")
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.strip_prefix("\\x").unwrap();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

/// So many tenants with two sealed passwords each, one cluster with one and one sealed entry.
fn fill(office: &Office, admin: &mut Client, tenants: u32) {
    let cluster = seal(office, "cluster:main", "admin", "admin's");
    admin.exec(&format!(
        "insert into pgusher.cluster (name, primary_url, admin_role, admin_password) \
         values ('main', 'postgres://h', 'a', '{cluster}')"
    ));
    for number in 0..tenants {
        let owner = format!("tenant:t{number}");
        let one = seal(office, &owner, "password", "one");
        let two = seal(office, &owner, "read_only_password", "two");
        let token = format!(
            "{}{}",
            "a".repeat(16),
            ["a", "b", "c", "d"][number as usize % 4].repeat(4)
        );
        admin.exec(&format!(
            "insert into pgusher.tenant (id, name, tier, cluster, database_name, token, role, password, \
             read_only_role, read_only_password, scram_salt) values ('t{number}', 'T', 'schema', 'main', 'd', \
             '{token}', 'r{number}', '{one}', 'q{number}', '{two}', '\\x00')"
        ));
    }
    let entry = seal(office, "tenant:t0", "entry:smtp.password", "three");
    admin.exec(&format!(
        "insert into pgusher.entry (tenant, key, kind, sealed) \
         values ('t0', 'smtp.password', 'integration', '{entry}')"
    ));
}

fn opened(office: &Office, admin: &mut Client, sql: &str, owner: &str, what: &str) -> String {
    let sealed = bytes(&admin.value(sql));
    let value = keyring(office).open(Purpose { owner, what }, Sealed(&sealed));
    String::from_utf8(value.unwrap().to_vec()).unwrap()
}

#[test]
fn everything_is_sealed_anew_under_the_newest_key_and_nothing_twice() {
    let office = Office::new(Postgres::shared().endpoint());
    assert_eq!(office.json(&["secrets", "rotate"])["resealed"], 0);
    let mut admin = office.admin();
    fill(&office, &mut admin, 4);

    office.add_master_key(2);
    let rotated = office.json(&["secrets", "rotate"]);
    assert_eq!(rotated["key"], 2);
    assert_eq!(rotated["resealed"], 1 + 4 * 2 + 1);
    assert_eq!(rotated["failed"].as_array().unwrap().len(), 0);
    let again = office.json(&["secrets", "rotate"]);
    assert_eq!(
        (&again["resealed"], &again["current"]),
        (&0.into(), &10.into())
    );

    // The old key is no longer needed.
    let file = office.path().join("master.key");
    let keys = std::fs::read_to_string(&file).unwrap();
    let newest = keys.lines().find(|line| line.starts_with("2 ")).unwrap();
    std::fs::write(&file, newest).unwrap();
    let password = "select password from pgusher.tenant where id = 't3'";
    assert_eq!(
        opened(&office, &mut admin, password, "tenant:t3", "password"),
        "one"
    );
    let entry = "select sealed from pgusher.entry";
    let value = opened(
        &office,
        &mut admin,
        entry,
        "tenant:t0",
        "entry:smtp.password",
    );
    assert_eq!(value, "three");
    let kinds = "select string_agg(kind, ' ') from pgusher.event";
    assert_eq!(
        admin.value(kinds),
        "SecretsRotated SecretsRotated SecretsRotated"
    );
}

#[test]
fn what_cannot_be_opened_is_named_and_stays_as_it_is() {
    let office = Office::new(Postgres::shared().endpoint());
    office.run(&["secrets", "rotate"]).succeeded();
    let mut admin = office.admin();
    fill(&office, &mut admin, 2);
    // Another tenant's password, put in its place.
    admin.exec(
        "update pgusher.tenant set password = (select password from pgusher.tenant where id = 't1') \
         where id = 't0'",
    );
    let moved = admin.value("select password from pgusher.tenant where id = 't0'");
    office.add_master_key(2);
    let run = office.run(&["secrets", "rotate", "--json"]);
    assert!(!run.is_success);
    assert!(run.err.contains("password of t0"), "{}", run.err);
    let rotated: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(rotated["resealed"], 5);
    assert_eq!(
        admin.value("select password from pgusher.tenant where id = 't0'"),
        moved
    );
}

#[test]
fn without_the_key_nothing_is_changed_and_the_way_out_is_said() {
    let office = Office::new(Postgres::shared().endpoint());
    office.run(&["secrets", "rotate"]).succeeded();
    let mut admin = office.admin();
    fill(&office, &mut admin, 1);
    let file = office.path().join("master.key");
    std::fs::remove_file(&file).unwrap();
    let run = office.run(&["secrets", "rotate"]);
    assert!(
        !run.is_success && run.err.contains("master.key"),
        "{}",
        run.err
    );
    office.add_master_key(7);
    let run = office.run(&["secrets", "rotate"]);
    assert!(!run.is_success);
    let said = "sealed under master key 1, which is not in the keyring";
    assert!(run.err.contains(said), "{}", run.err);
}

#[test]
fn a_command_without_a_registry_says_how_to_get_one() {
    let office = Office::new(Postgres::shared().endpoint());
    std::fs::write(office.path().join("proxy.toml"), "").unwrap();
    let run = office.run(&["audit", "verify"]);
    assert!(
        !run.is_success && run.err.contains("[registry]"),
        "{}",
        run.err
    );
}

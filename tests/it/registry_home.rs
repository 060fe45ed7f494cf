//! Where the registry stands in its database, whoever logs in.

use crate::harness::{Postgres, office::Office};
use std::{fs, sync::Once};

/// An office whose registry belongs to a login of the name of its schema, as the documentation has
/// it: what is named without a schema is looked for in that schema, as soon as there is one.
fn office() -> Office {
    static LOGIN: Once = Once::new();
    let shared = Postgres::shared().endpoint();
    let office = Office::new(shared);
    LOGIN.call_once(|| {
        let mut admin = shared.admin();
        admin.exec("create role pgusher login in role by_trust");
    });
    let mut admin = office.admin();
    let database = admin.value("select current_database()");
    admin.exec(&format!("alter database {database} owner to pgusher"));
    let path = office.path().join("proxy.toml");
    let toml = fs::read_to_string(&path).unwrap();
    let (before, after) = toml.split_once("postgres://").unwrap();
    let (_, place) = after.split_once('@').unwrap();
    fs::write(path, format!("{before}postgres://pgusher@{place}")).unwrap();
    office
}

fn works(office: &Office) {
    for _ in 0..2 {
        office.run(&["tenant", "list"]).succeeded();
        office.run(&["migrate"]).succeeded();
    }
    let tables = "select string_agg(relnamespace::regnamespace::text, ' ') from pg_class \
                  where relname = '_sqlx_migrations' and relkind = 'r'";
    assert_eq!(office.admin().value(tables), "pgusher");
}

#[test]
fn a_login_of_the_schemas_name_finds_the_registry_again() {
    let office = office();
    office.run(&["migrate"]).succeeded();
    works(&office);
}

#[test]
fn a_registry_whose_record_of_versions_is_elsewhere_is_taken_over() {
    let office = office();
    office.run(&["migrate"]).succeeded();
    let mut admin = office.admin();
    // As it was made before, and tried again since.
    admin.exec("alter table pgusher._sqlx_migrations set schema public");
    admin.exec(
        "create table pgusher._sqlx_migrations (like public._sqlx_migrations including all); \
         alter table pgusher._sqlx_migrations owner to pgusher",
    );
    works(&office);
    let applied = admin.value("select count(*) from pgusher._sqlx_migrations");
    assert_eq!(applied, migrations().to_string());
}

/// How many migrations a registry has.
fn migrations() -> usize {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/registry/migrations");
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn the_record_of_versions_of_an_application_in_the_same_database_stays() {
    let office = office();
    let mut admin = office.admin();
    admin.exec(
        "create table public._sqlx_migrations (version bigint, description text); \
         insert into public._sqlx_migrations values (1, 'shop'); \
         alter table public._sqlx_migrations owner to pgusher",
    );
    office.run(&["migrate"]).succeeded();
    office.run(&["tenant", "list"]).succeeded();
    let theirs = admin.value("select description from public._sqlx_migrations");
    assert_eq!(theirs, "shop");
}

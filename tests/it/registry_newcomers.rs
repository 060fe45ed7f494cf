//! New tenants are found at once, whoever else knocks.

use crate::harness::estate::Estate;
use pgusher::{
    config::Config,
    registry::{Registry, RegistryDirectory},
    tenant::Directory as _,
};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

async fn directory(estate: &Estate, end: &CancellationToken) -> RegistryDirectory {
    let config = Config::load(&estate.office.path().join("proxy.toml")).unwrap();
    let keyring = Arc::new(config.master_key.as_ref().unwrap().load().unwrap());
    let config = config.registry.as_ref().unwrap();
    let registry = Registry::new(config, keyring).unwrap();
    let directory = RegistryDirectory::start(config, registry, end).await;
    let directory = directory.unwrap();
    told_of(&directory, "").await;
    directory
}

/// Waits until the directory has been told of a tenant, or of all.
async fn told_of(directory: &RegistryDirectory, id: &str) {
    loop {
        let changed = directory.changed().await;
        if changed.is_all || changed.tenants.iter().any(|it| it == id) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_tenant_is_no_stranger_once_it_is_told_of() {
    let estate = Estate::new();
    estate.create("acme", "row");
    let mut registry = estate.registry();
    let end = CancellationToken::new();
    let directory = directory(&estate, &end).await;
    // More names that nobody has than are asked for in a second.
    for number in 0..100 {
        let id = format!("stranger-{number}");
        assert!(directory.tenant(&id).await.unwrap().is_none());
    }
    registry.exec(
        "insert into pgusher.tenant (id, name, tier, status, cluster, database_name, token, role, \
             password, read_only_role, read_only_password, scram_salt) \
         select 'newcomer', name, 'row', status, cluster, database_name, repeat('a', 20), role, \
             null, null, null, scram_salt from pgusher.tenant where id = 'acme'",
    );
    told_of(&directory, "newcomer").await;
    let found = directory.tenant("newcomer").await.unwrap();
    assert!(found.is_some(), "it is taken for a stranger");
    end.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_being_made_is_asked_for_again() {
    let estate = Estate::new();
    estate.create("acme", "row");
    let mut registry = estate.registry();
    let end = CancellationToken::new();
    let directory = directory(&estate, &end).await;
    registry.exec("update pgusher.tenant set status = 'provisioning' where id = 'acme'");
    told_of(&directory, "acme").await;
    for _ in 0..2 {
        assert!(directory.tenant("acme").await.unwrap().is_none());
    }
    // It is ready, and that is told later.
    registry.exec(
        "set session_replication_role = replica; \
         update pgusher.tenant set status = 'active' where id = 'acme'",
    );
    let found = directory.tenant("acme").await.unwrap();
    assert!(found.is_some(), "it is still taken for half made");
    end.cancel();
}

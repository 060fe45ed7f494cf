//! Tenants' places in PostgreSQL: made, made again, interrupted, locked out, removed.

use super::harness::{Client, Connect, Postgres, postgres::ADMIN};
use pgusher::{
    provisioning::{Admin, Place, Profile, Variant, harden_cluster, make, new_token, unmake},
    tenant::{Address, Login, Secret, Tier, UpstreamTls},
};
use std::{collections::BTreeSet, sync::OnceLock, time::Duration};
use tokio::sync::{Mutex, MutexGuard};

/// The admin that is no superuser.
const OPERATOR: &str = "operator";

/// One cluster for this module, hardened by a superuser.
pub(super) fn hardened() -> &'static Postgres {
    static HARDENED: OnceLock<Postgres> = OnceLock::new();
    HARDENED.get_or_init(Postgres::start)
}

/// One that no superuser has ever hardened.
pub(super) fn managed() -> &'static Postgres {
    static MANAGED: OnceLock<Postgres> = OnceLock::new();
    MANAGED.get_or_init(|| {
        let postgres = Postgres::start();
        let mut admin = postgres.admin();
        admin.exec(&format!(
            "create role {OPERATOR} login createrole createdb password 'operator'"
        ));
        admin.exec(&format!("grant connect on database postgres to {OPERATOR}"));
        postgres
    })
}

pub(super) fn superuser(postgres: &Postgres) -> Admin {
    Admin {
        address: Address::Tcp {
            host: "127.0.0.1".into(),
            port: postgres.endpoint().port(),
        },
        tls: UpstreamTls::Disable,
        role: ADMIN.into(),
        password: None,
        connect_timeout: Duration::from_secs(20),
    }
}

pub(super) fn operator(postgres: &Postgres) -> Admin {
    Admin {
        role: OPERATOR.into(),
        password: Some(Secret::new("operator".into())),
        ..superuser(postgres)
    }
}

pub(super) fn both() -> [(&'static Postgres, Admin); 2] {
    [
        (hardened(), superuser(hardened())),
        (managed(), operator(managed())),
    ]
}

pub(super) fn place(tier: Tier) -> Place {
    let token = new_token().unwrap();
    let login = |prefix: &str| Login {
        role: format!("{prefix}_{token}").into(),
        password: Some(Secret::new(format!("password of {prefix}"))),
    };
    Place {
        tier,
        variant: Variant::Own,
        database: match tier {
            Tier::Database => format!("d_{token}").into(),
            Tier::Schema => "the schemas".into(),
            Tier::Row => "the rows".into(),
        },
        schema: match tier {
            Tier::Database => Some("app".into()),
            Tier::Schema => Some(format!("t_{token}").into()),
            Tier::Row => None,
        },
        login: Some(login("t")),
        read_only_login: Some(login("r")),
        connection_limit: 10,
        token,
    }
}

pub(super) const TIERS: [Tier; 3] = [Tier::Database, Tier::Schema, Tier::Row];

pub(super) fn connect(postgres: &Postgres, place: &Place, login: &Login) -> Connect {
    Connect::to(postgres.endpoint().address())
        .user(&login.role)
        .database(&place.database)
        .password(login.password.as_ref().unwrap().expose())
}

pub(super) fn writer(postgres: &Postgres, place: &Place) -> Client {
    connect(postgres, place, place.login.as_ref().unwrap()).login()
}

pub(super) fn reader(postgres: &Postgres, place: &Place) -> Client {
    connect(postgres, place, place.read_only_login.as_ref().unwrap()).login()
}

/// What looks at a whole cluster has it for itself.
pub(super) async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Everything in the cluster that a place could leave behind.
fn traces(postgres: &Postgres) -> BTreeSet<String> {
    let mut admin = postgres.admin();
    let mut found: BTreeSet<String> = admin
        .values(
            "select 'role ' || rolname from pg_authid union all
             select 'setting of ' || setrole::regrole || ' in ' || setdatabase from pg_db_role_setting union all
             select 'member ' || member::regrole || ' of ' || roleid::regrole from pg_auth_members union all
             select 'dependency ' || s::text from (select dbid, classid, objid, refobjid::regrole, deptype from pg_shdepend) s
             where classid <> 'pg_type'::regclass",
        )
        .into_iter()
        .collect();
    for database in admin
        .values("select datname from pg_database where datallowconn and datname <> 'template0'")
    {
        let mut inside = postgres.endpoint().admin_of(&database);
        let schemas = inside.values("select nspname from pg_namespace where nspname !~ '^pg_t'");
        found.extend(
            schemas
                .iter()
                .map(|name| format!("schema {database}.{name}")),
        );
        let defaults = inside.values("select defaclrole::regrole::text from pg_default_acl");
        found.extend(
            defaults
                .iter()
                .map(|name| format!("defaults {database} {name}")),
        );
        found.insert(format!("database {database}"));
    }
    found
}

#[tokio::test]
async fn what_is_unmade_leaves_nothing() {
    let _turn = turn().await;
    for (postgres, admin) in both() {
        harden_cluster(&admin, Profile::Strict).await.unwrap();
        for tier in TIERS {
            // The shared databases are there from here on.
            let first = place(tier);
            make(&admin, Profile::Strict, &first).await.unwrap();
            let before = traces(postgres);
            let place = place(tier);
            make(&admin, Profile::Strict, &place).await.unwrap();
            assert_ne!(traces(postgres), before, "{tier}");
            unmake(&admin, &place).await.unwrap();
            assert_eq!(traces(postgres), before, "{tier}");
            unmake(&admin, &place).await.unwrap();
            unmake(&admin, &first).await.unwrap();
        }
    }
}

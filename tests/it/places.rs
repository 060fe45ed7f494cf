//! Tenants' places in PostgreSQL: made, made again, interrupted, locked out, removed.

use super::harness::{Client, Connect, Postgres, postgres::ADMIN};
use pgusher::{
    provisioning::{
        Admin, Place, Plan, Profile, ProvisioningError, Variant, harden_cluster, let_in, lock_out,
        make, new_token, repair, set_passwords, unmake, verify,
    },
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

#[tokio::test]
async fn what_is_made_twice_is_made_once() {
    let _turn = turn().await;
    for (postgres, admin) in both() {
        for tier in TIERS {
            let place = place(tier);
            make(&admin, Profile::Strict, &place).await.unwrap();
            if tier != Tier::Row {
                writer(postgres, &place).exec("create table kept as select 1 as i");
            }
            let once = traces(postgres);
            make(&admin, Profile::Strict, &place).await.unwrap();
            assert_eq!(traces(postgres), once, "{tier}");
            if tier != Tier::Row {
                assert_eq!(reader(postgres, &place).value("select i from kept"), "1");
            }
            unmake(&admin, &place).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_was_interrupted_at_any_step_goes_on_or_is_removed() {
    let _turn = turn().await;
    for (postgres, admin) in both() {
        for tier in TIERS {
            let shared = place(tier);
            make(&admin, Profile::Strict, &shared).await.unwrap();
            let before = traces(postgres);
            let steps = Plan::of(Profile::Strict, &shared).unwrap().steps().len();
            for done in 0..=steps {
                let [resumed, removed] = [(); 2].map(|()| place(tier));
                for place in [&resumed, &removed] {
                    let plan = Plan::of(Profile::Strict, place).unwrap();
                    plan.run(&admin, done).await.unwrap();
                }
                unmake(&admin, &removed).await.unwrap();
                make(&admin, Profile::Strict, &resumed).await.unwrap();
                writer(postgres, &resumed).is_in_step();
                unmake(&admin, &resumed).await.unwrap();
                assert_eq!(
                    traces(postgres),
                    before,
                    "{tier} after {done} of {steps} steps"
                );
            }
            unmake(&admin, &shared).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_killed_in_the_middle_of_a_step_goes_on() {
    let _turn = turn().await;
    let (postgres, admin) = (hardened(), superuser(hardened()));
    for tier in TIERS {
        let place = place(tier);
        let mut interrupted = 0;
        loop {
            let made = make(&admin, Profile::Strict, &place);
            let limit = Duration::from_millis(10 * interrupted);
            if tokio::time::timeout(limit, made)
                .await
                .is_ok_and(|made| made.is_ok())
            {
                break;
            }
            interrupted += 1;
        }
        assert!(interrupted > 3, "{tier}: {interrupted}");
        writer(postgres, &place).is_in_step();
        let report = verify(&admin, Profile::Strict, &place).await.unwrap();
        assert!(
            report.holds(),
            "{tier}: {:?}",
            report.open().collect::<Vec<_>>()
        );
        unmake(&admin, &place).await.unwrap();
    }
}

#[tokio::test]
async fn many_are_made_and_removed_at_once() {
    let _turn = turn().await;
    for (postgres, admin) in both() {
        for tier in TIERS {
            let places: Vec<_> = (0..20).map(|_| place(tier)).collect();
            let each = |place: Place| {
                let admin = admin.clone();
                tokio::spawn(async move { make(&admin, Profile::Strict, &place).await })
            };
            let makings: Vec<_> = places.iter().cloned().map(each).collect();
            for making in makings {
                making.await.unwrap().unwrap();
            }
            for place in &places {
                writer(postgres, place).is_in_step();
            }
            let each = |place: Place| {
                let admin = admin.clone();
                tokio::spawn(async move { unmake(&admin, &place).await })
            };
            let removals: Vec<_> = places.iter().cloned().map(each).collect();
            for removal in removals {
                removal.await.unwrap().unwrap();
            }
            let left = postgres
                .admin()
                .value("select count(*) from pg_roles where rolname ~ '^[tr]_[a-z2-7]{20}$'");
            assert_eq!(left, "0", "{tier}");
        }
    }
}

#[tokio::test]
async fn who_is_locked_out_is_gone_and_comes_back_when_let_in() {
    let _turn = turn().await;
    for (postgres, admin) in both() {
        for tier in TIERS {
            let place = place(tier);
            make(&admin, Profile::Strict, &place).await.unwrap();
            let mut sessions = [writer(postgres, &place), reader(postgres, &place)];
            lock_out(&admin, &place).await.unwrap();
            for session in &mut sessions {
                session.ends_with("57P01");
            }
            for login in [&place.login, &place.read_only_login] {
                let refused = connect(postgres, &place, login.as_ref().unwrap()).refused();
                assert_eq!(refused.code(), "28000");
            }
            lock_out(&admin, &place).await.unwrap();
            let_in(&admin, &place).await.unwrap();
            writer(postgres, &place).is_in_step();
            reader(postgres, &place).is_in_step();
            unmake(&admin, &place).await.unwrap();
            lock_out(&admin, &place).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_new_password_lets_open_sessions_be() {
    let _turn = turn().await;
    for (postgres, admin) in both() {
        let mut place = place(Tier::Schema);
        make(&admin, Profile::Strict, &place).await.unwrap();
        let mut session = writer(postgres, &place);
        let old = connect(postgres, &place, place.login.as_ref().unwrap());
        for login in [&mut place.login, &mut place.read_only_login] {
            login.as_mut().unwrap().password = Some(Secret::new("new 'pass\\word'".into()));
        }
        set_passwords(&admin, &place).await.unwrap();
        session.is_in_step();
        assert_eq!(old.refused().code(), "28P01");
        writer(postgres, &place).is_in_step();
        reader(postgres, &place).is_in_step();
        unmake(&admin, &place).await.unwrap();
    }
}

#[tokio::test]
async fn a_tenant_that_locked_itself_out_is_repaired() {
    let _turn = turn().await;
    for (postgres, admin) in both() {
        for tier in TIERS {
            let place = place(tier);
            make(&admin, Profile::Strict, &place).await.unwrap();
            let mut session = writer(postgres, &place);
            session.exec("alter role current_user set statement_timeout = 1");
            session.exec("alter role current_user set search_path = nowhere");
            session.exec(&format!(
                "alter role current_user in database \"{}\" set search_path = nowhere",
                place.database
            ));
            session.exec("alter role current_user in database template1 set work_mem = '1GB'");
            session.exec("alter role current_user password 'lost'");
            session.exec("drop owned by current_user cascade");
            assert_eq!(
                connect(postgres, &place, place.login.as_ref().unwrap())
                    .refused()
                    .code(),
                "28P01"
            );
            repair(&admin, Profile::Strict, &place).await.unwrap();
            let mut session = writer(postgres, &place);
            assert_eq!(session.value("show statement_timeout"), "0");
            let expected = place.schema.as_deref().unwrap_or("app");
            assert_eq!(session.value("show search_path"), expected);
            let report = verify(&admin, Profile::Strict, &place).await.unwrap();
            assert!(
                report.holds(),
                "{tier}: {:?}",
                report.open().collect::<Vec<_>>()
            );
            unmake(&admin, &place).await.unwrap();
        }
    }
}

#[tokio::test]
async fn who_only_reads_reads_what_comes_later_and_writes_nothing() {
    let _turn = turn().await;
    for (postgres, admin) in both() {
        for tier in [Tier::Database, Tier::Schema] {
            let place = place(tier);
            make(&admin, Profile::Strict, &place).await.unwrap();
            let mut owner = writer(postgres, &place);
            owner.exec("create table later (id serial, t text)");
            owner.exec("insert into later (t) values ('seen')");
            owner.exec("create view view_of_it as select * from later");
            owner.exec("create function writes() returns void language sql security definer as 'insert into later (t) values (1)'");
            let mut reader = reader(postgres, &place);
            assert_eq!(reader.value("select t from later"), "seen");
            assert_eq!(reader.value("select t from view_of_it"), "seen");
            assert_eq!(reader.value("show transaction_read_only"), "on");
            reader.exec("set default_transaction_read_only = off");
            for write in [
                "insert into later (t) values ('x')",
                "update later set t = 'x'",
                "delete from view_of_it",
                "truncate later",
                "select nextval('later_id_seq')",
                "select setval('later_id_seq', 9)",
                "select writes()",
                "create table mine (i int)",
                "create temp table mine (i int)",
                "do 'begin lock table later in share mode; end'",
                "drop table later",
                "alter default privileges for role current_user grant insert on tables to public; create table x ()",
            ] {
                assert_eq!(reader.fails(write).code(), "42501", "{tier}: {write}");
            }
            if admin.role.as_ref() == ADMIN {
                for write in [
                    "select lo_create(0)",
                    "select lo_from_bytea(0, 'x')",
                    "select lo_unlink(1)",
                ] {
                    assert_eq!(reader.fails(write).code(), "42501", "{tier}: {write}");
                }
            }
            unmake(&admin, &place).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_tenant_goes_with_everything_that_others_gave_it() {
    let _turn = turn().await;
    for (postgres, admin) in both() {
        let [one, two, own] = [Tier::Schema, Tier::Schema, Tier::Database].map(place);
        for place in [&one, &two, &own] {
            make(&admin, Profile::Strict, place).await.unwrap();
        }
        // Who knows another's name may grant it something, in any database.
        for giver in [&one, &own] {
            let mut session = writer(postgres, giver);
            session.exec("create table given (i int)");
            session.exec(&format!("grant all on given to t_{0}, r_{0}", two.token));
            session.exec(&format!(
                "alter default privileges grant all on tables to t_{}",
                two.token
            ));
            session.exec(&format!(
                "grant usage on schema {} to t_{}",
                giver.schema.as_ref().unwrap(),
                two.token
            ));
        }
        let mut held = writer(postgres, &two);
        held.exec("create table mine (i int); begin; lock table mine");
        let mut prepared = writer(postgres, &two);
        prepared.exec("begin; create table late (i int); prepare transaction 'late'");
        unmake(&admin, &two).await.unwrap();
        let left = postgres.admin().value(&format!(
            "select count(*) from pg_roles where rolname ~ '{}'",
            two.token
        ));
        assert_eq!(left, "0");
        assert_eq!(
            writer(postgres, &one).value("select count(*) from given"),
            "0"
        );
        for place in [&one, &own] {
            unmake(&admin, place).await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_rows_of_a_tenant_go_and_no_others() {
    let _turn = turn().await;
    for (postgres, admin) in both() {
        let [one, two] = [(); 2].map(|()| place(Tier::Row));
        for place in [&one, &two] {
            make(&admin, Profile::Strict, place).await.unwrap();
            let mut session = writer(postgres, place);
            session.exec("insert into ctl.canary (id, secret) select n, 'own' from generate_series(1, 100) as n");
            assert_eq!(session.value("select count(*) from ctl.canary"), "100");
        }
        unmake(&admin, &one).await.unwrap();
        let mut server = postgres.endpoint().admin_of(&one.database);
        let count =
            |token: &str| format!("select count(*) from data.canary where tenant_id = '{token}'");
        assert_eq!(server.value(&count(&one.token)), "0");
        assert_eq!(server.value(&count(&two.token)), "100");
        unmake(&admin, &two).await.unwrap();
    }
}

#[tokio::test]
async fn a_name_that_is_taken_is_never_touched() {
    let _turn = turn().await;
    let (postgres, admin) = (hardened(), superuser(hardened()));
    let first = place(Tier::Schema);
    make(&admin, Profile::Strict, &first).await.unwrap();
    let mut server = postgres.endpoint().admin_of("the schemas");
    let taken = place(Tier::Schema);
    server.exec(&format!(
        "create role t_{} login password 'theirs'",
        taken.token
    ));
    let error = make(&admin, Profile::Strict, &taken).await.unwrap_err();
    assert!(matches!(error, ProvisioningError::NameTaken(_)), "{error}");
    server.exec(&format!("drop role t_{}", taken.token));
    server.exec(&format!("create schema t_{}", taken.token));
    let error = make(&admin, Profile::Strict, &taken).await.unwrap_err();
    assert!(matches!(error, ProvisioningError::NameTaken(_)), "{error}");
    server.exec(&format!("drop schema t_{}", taken.token));
    make(&admin, Profile::Strict, &taken).await.unwrap();
    unmake(&admin, &taken).await.unwrap();
    unmake(&admin, &first).await.unwrap();

    let (postgres, admin) = (managed(), operator(managed()));
    let taken = place(Tier::Database);
    postgres
        .admin()
        .exec(&format!("create database {}", taken.database));
    let error = make(&admin, Profile::Strict, &taken).await.unwrap_err();
    assert!(matches!(error, ProvisioningError::NameTaken(_)), "{error}");
    postgres
        .admin()
        .exec(&format!("drop database {}", taken.database));
    unmake(&admin, &taken).await.unwrap();
}

#[tokio::test]
async fn a_cluster_that_cannot_be_used_is_said_plainly() {
    let _turn = turn().await;
    let place = place(Tier::Schema);
    let secret = "the admin's password";
    let wrong = Admin {
        password: Some(Secret::new(secret.into())),
        ..operator(managed())
    };
    let error = make(&wrong, Profile::Strict, &place).await.unwrap_err();
    assert!(
        matches!(error, ProvisioningError::NotLetIn { .. }),
        "{error}"
    );
    assert_eq!(error.code(), Some("28P01"));
    assert!(!format!("{error} {error:?}").contains(secret));

    let nobody = Admin {
        address: Address::Tcp {
            host: "127.0.0.1".into(),
            port: 1,
        },
        ..superuser(hardened())
    };
    let error = make(&nobody, Profile::Strict, &place).await.unwrap_err();
    assert!(
        matches!(error, ProvisioningError::Unreachable { .. }),
        "{error}"
    );

    let (postgres, admin) = (managed(), operator(managed()));
    postgres.admin().exec(&format!(
        "alter role {OPERATOR} set default_transaction_read_only = on"
    ));
    let error = make(&admin, Profile::Strict, &place).await.unwrap_err();
    assert!(matches!(error, ProvisioningError::ReadOnly), "{error}");
    postgres.admin().exec(&format!(
        "alter role {OPERATOR} reset default_transaction_read_only"
    ));
}

#[tokio::test]
async fn a_place_that_cannot_be_is_refused_before_anything_is_made() {
    let admin = superuser(hardened());
    let change: [fn(&mut Place); 7] = [
        |place| place.token = "acme".into(),
        |place| place.database = "postgres".into(),
        |place| place.database = "d".repeat(64).into(),
        |place| place.schema = Some("pg_mine".into()),
        |place| place.login = None,
        |place| place.login.as_mut().unwrap().role = "admin".into(),
        |place| place.variant = Variant::Shared,
    ];
    for change in change {
        let mut place = place(Tier::Schema);
        change(&mut place);
        for result in [
            make(&admin, Profile::Strict, &place).await.map(|_| ()),
            unmake(&admin, &place).await,
            lock_out(&admin, &place).await,
            set_passwords(&admin, &place).await,
        ] {
            assert!(
                matches!(result, Err(ProvisioningError::Place(_))),
                "{place:?}"
            );
        }
    }
}

#[tokio::test]
async fn no_password_is_sent_to_postgresql() {
    let _turn = turn().await;
    let (postgres, admin) = (hardened(), superuser(hardened()));
    let mut server = postgres.admin();
    server.exec("alter system set log_statement = 'all'");
    server.exec("select pg_reload_conf()");
    let place = place(Tier::Schema);
    make(&admin, Profile::Strict, &place).await.unwrap();
    set_passwords(&admin, &place).await.unwrap();
    server.exec("alter system reset log_statement");
    server.exec("select pg_reload_conf()");
    let log = std::fs::read_to_string(postgres.socket_folder().join("log")).unwrap();
    assert!(
        log.contains("SCRAM-SHA-256$"),
        "the statements are in the log"
    );
    for login in [&place.login, &place.read_only_login] {
        let password = login.as_ref().unwrap().password.as_ref().unwrap();
        assert!(!log.contains(password.expose()));
    }
    unmake(&admin, &place).await.unwrap();
}

#[tokio::test]
async fn the_compatible_profile_shows_definitions_and_says_so() {
    let _turn = turn().await;
    let (postgres, admin) = (hardened(), superuser(hardened()));
    let place = place(Tier::Schema);
    let ask = "select pg_get_functiondef('f'::regproc) || prosrc from pg_proc where proname = 'f'";
    for profile in [Profile::Strict, Profile::Compatible, Profile::Strict] {
        let holes = make(&admin, profile, &place).await.unwrap();
        let mut session = writer(postgres, &place);
        session.exec("create or replace function f() returns int language sql as 'select 1'");
        let told = holes.iter().any(|hole| hole.name == "definitions");
        assert_eq!(told, profile == Profile::Compatible);
        if profile == Profile::Strict {
            assert_eq!(session.fails(ask).code(), "42501");
        } else {
            assert!(session.value(ask).contains("select 1"));
        }
        let report = verify(&admin, profile, &place).await.unwrap();
        assert!(
            report.holds(),
            "{profile:?}: {:?}",
            report.open().collect::<Vec<_>>()
        );
    }
    unmake(&admin, &place).await.unwrap();
}

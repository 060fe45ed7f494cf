//! Templates: applied in order, once, as the tenant and never as the admin.

use super::harness::{Client, Connect, Postgres, postgres::ADMIN};
use pgusher::{
    provisioning::{
        Admin, Place, Profile, Variant, harden_cluster, make, new_token,
        templates::{Applied, TemplateError, apply, pending},
    },
    tenant::{Address, Login, Secret, Tier, UpstreamTls},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};
use tempfile::TempDir;

/// One cluster for templates and protected tables.
pub fn postgres() -> &'static Postgres {
    static POSTGRES: OnceLock<Postgres> = OnceLock::new();
    POSTGRES.get_or_init(Postgres::start)
}

pub fn superuser() -> Admin {
    Admin {
        address: Address::Tcp {
            host: "127.0.0.1".into(),
            port: postgres().endpoint().port(),
        },
        tls: UpstreamTls::Disable,
        role: ADMIN.into(),
        password: None,
        connect_timeout: Duration::from_secs(20),
    }
}

/// One that no superuser has hardened, whose admin is none.
fn managed() -> &'static Postgres {
    static MANAGED: OnceLock<Postgres> = OnceLock::new();
    MANAGED.get_or_init(|| {
        let postgres = Postgres::start();
        let mut admin = postgres.admin();
        admin.exec("create role operator login createrole createdb password 'operator'");
        admin.exec("grant connect on database postgres to operator");
        postgres
    })
}

fn operator() -> Admin {
    Admin {
        address: Address::Tcp {
            host: "127.0.0.1".into(),
            port: managed().endpoint().port(),
        },
        role: "operator".into(),
        password: Some(Secret::new("operator".into())),
        ..superuser()
    }
}

fn cluster(admin: &Admin) -> &'static Postgres {
    if &*admin.role == ADMIN {
        postgres()
    } else {
        managed()
    }
}

/// A place that is made, in a database of this name where it is shared.
pub async fn place(admin: &Admin, tier: Tier, database: &str) -> Place {
    let token = new_token().unwrap();
    let login = |prefix: &str| Login {
        role: format!("{prefix}_{token}").into(),
        password: Some(Secret::new(format!("password of {prefix}"))),
    };
    let place = Place {
        tier,
        variant: Variant::Own,
        database: match tier {
            Tier::Database => format!("d_{token}").into(),
            Tier::Schema | Tier::Row => database.into(),
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
    };
    harden_cluster(admin, Profile::Strict).await.unwrap();
    make(admin, Profile::Strict, &place).await.unwrap();
    place
}

fn connect(postgres: &Postgres, place: &Place, login: Option<&Login>) -> Client {
    let login = login.unwrap();
    Connect::to(postgres.endpoint().address())
        .user(&login.role)
        .database(&place.database)
        .password(login.password.as_ref().unwrap().expose())
        .login()
}

pub fn writer(place: &Place) -> Client {
    connect(postgres(), place, place.login.as_ref())
}

pub fn reader(place: &Place) -> Client {
    connect(postgres(), place, place.read_only_login.as_ref())
}

/// A directory of templates for all tiers.
pub fn directory(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for tier in ["database", "schema", "row"] {
        fs::create_dir(folder.path().join(tier)).unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(tier).join(name), text).unwrap();
        }
    }
    folder
}

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/demo/templates")
}

const TIERS: [Tier; 3] = [Tier::Database, Tier::Schema, Tier::Row];

/// What an application of the samples does, without a word about tenants.
fn use_samples(client: &mut Client, secret: &str) {
    client.exec(&format!("INSERT INTO accounts VALUES (1, '{secret}')"));
    client.exec("INSERT INTO accounts (id, secret) VALUES (2, 'two')");
    let order = "INSERT INTO orders (account_id, item) VALUES (1, 'pen') RETURNING id";
    let first: i64 = client.value(order).parse().unwrap();
    let second: i64 = client.value(order).parse().unwrap();
    assert_eq!(second, first + 1);
    let joined = "SELECT secret || item FROM accounts JOIN orders ON account_id = accounts.id";
    assert_eq!(client.values(joined), vec![format!("{secret}pen"); 2]);
    let orphan = client.fails("INSERT INTO orders (account_id, item) VALUES (3, 'x')");
    assert_eq!(orphan.code(), "23503");
    let again = client.fails("INSERT INTO accounts VALUES (1, 'again')");
    assert_eq!(again.code(), "23505");
    client.exec("DELETE FROM accounts WHERE id = 1");
    assert_eq!(client.value("SELECT count(*) FROM orders"), "0");
}

#[tokio::test]
async fn the_same_application_works_in_all_tiers() {
    for (admin, database) in [(superuser(), "same"), (operator(), "same 2")] {
        for tier in TIERS {
            let places = [
                place(&admin, tier, &format!("{database} {tier}")).await,
                place(&admin, tier, &format!("{database} {tier}")).await,
            ];
            for place in &places {
                let applied = apply(&admin, place, &samples()).await;
                let applied = applied.unwrap_or_else(|error| panic!("{tier}: {error}"));
                assert_eq!(applied.to, 1, "{tier}");
            }
            for (place, secret) in places.iter().zip(["one", "other"]) {
                let cluster = cluster(&admin);
                use_samples(&mut connect(cluster, place, place.login.as_ref()), secret);
                let mut reader = connect(cluster, place, place.read_only_login.as_ref());
                assert_eq!(reader.values("SELECT secret FROM accounts"), ["two"]);
                let refused = reader.fails("INSERT INTO accounts VALUES (7, 'x')");
                // The database tier's reader says 25006 before 42501.
                assert!(matches!(refused.code(), "42501" | "25006"), "{refused:?}");
            }
        }
    }
}

#[tokio::test]
async fn files_are_applied_once_and_in_order() {
    let files = directory(&[
        ("0002_more.sql", "ALTER TABLE a ADD COLUMN note text;"),
        ("10_last.sql", "CREATE INDEX a_note ON a (note);"),
        ("1_first.sql", "CREATE TABLE a (id int PRIMARY KEY);"),
    ]);
    let admin = superuser();
    for tier in TIERS {
        let place = place(&admin, tier, &format!("order {tier}")).await;
        let (from, waiting) = pending(&admin, &place, files.path()).await.unwrap();
        let versions: Vec<i64> = waiting.iter().map(|it| it.version).collect();
        assert_eq!((from, versions), (0, vec![1, 2, 10]), "{tier}");
        let mut inside = postgres().endpoint().admin_of(&place.database);
        let is_there = "SELECT to_regclass('pgusher.template') IS NOT NULL";
        assert_eq!(
            inside.value(is_there),
            "f",
            "looking changes nothing: {tier}"
        );
        let applied = apply(&admin, &place, files.path()).await.unwrap();
        assert_eq!(applied, Applied { from: 0, to: 10 }, "{tier}");
        let again = apply(&admin, &place, files.path()).await.unwrap();
        assert_eq!(again, Applied { from: 10, to: 10 }, "{tier}");
        let records = inside.values(
            "SELECT version || ' ' || name || ' ' || (transaction IS NULL) FROM pgusher.template ORDER BY version",
        );
        assert_eq!(records, ["1 first true", "2 more true", "10 last true"]);
        let mut client = writer(&place);
        client.exec("INSERT INTO a VALUES (1, 'note')");
        assert_eq!(
            client.fails("SELECT * FROM pgusher.template").code(),
            "42501"
        );
        let left = format!(
            "SELECT count(*) FROM pg_roles WHERE rolname = 'm_{}'",
            place.token
        );
        assert_eq!(inside.value(&left), "0", "{tier}");
    }
}

#[tokio::test]
async fn an_error_says_where_and_leaves_the_files_before() {
    let files = directory(&[
        ("1_first.sql", "CREATE TABLE a (id int PRIMARY KEY);"),
        (
            "2_second.sql",
            "CREATE TABLE b (id int PRIMARY KEY);\n\nSELECT 1,\n  FROM FROM x;\n",
        ),
    ]);
    let admin = superuser();
    for tier in TIERS {
        let place = place(&admin, tier, &format!("wrong {tier}")).await;
        let error = apply(&admin, &place, files.path()).await.unwrap_err();
        let TemplateError::Refused {
            file, line, code, ..
        } = &error
        else {
            panic!("{error}");
        };
        assert!(file.ends_with("2_second.sql"), "{error}");
        assert_eq!((*line, code.as_str()), (4, "42601"), "{error}");
        let mut client = writer(&place);
        assert_eq!(client.value("SELECT count(*) FROM a"), "0");
        assert_eq!(client.fails("SELECT * FROM b").code(), "42P01");
        let (from, waiting) = pending(&admin, &place, files.path()).await.unwrap();
        assert_eq!((from, waiting.len()), (1, 1));

        let second = files.path().join(tier.as_str()).join("2_second.sql");
        fs::write(&second, "CREATE TABLE b (id int PRIMARY KEY);").unwrap();
        let applied = apply(&admin, &place, files.path()).await.unwrap();
        assert_eq!(applied, Applied { from: 1, to: 2 });

        fs::write(&second, "CREATE TABLE b (id int);").unwrap();
        let error = apply(&admin, &place, files.path()).await.unwrap_err();
        assert!(
            matches!(&error, TemplateError::Changed { file } if *file == second),
            "{error}"
        );
        fs::remove_file(&second).unwrap();
        let error = apply(&admin, &place, files.path()).await.unwrap_err();
        assert!(
            matches!(error, TemplateError::Gone { version: 2, .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn several_runs_at_once_are_one() {
    let files = directory(&[
        (
            "1_a.sql",
            "CREATE TABLE a (id int PRIMARY KEY); SELECT pg_sleep(0.2)",
        ),
        ("2_b.sql", "CREATE TABLE b (id int PRIMARY KEY)"),
    ]);
    let admin = superuser();
    for tier in TIERS {
        let place = place(&admin, tier, &format!("once {tier}")).await;
        let run = || apply(&admin, &place, files.path());
        let (a, b, c) = tokio::join!(run(), run(), run());
        for applied in [a, b, c] {
            assert_eq!(applied.unwrap().to, 2, "{tier}");
        }
    }
}

/// What a tenant may have left in its schema to be run by who comes by. Whatever runs notes as whom,
/// and tries to become somebody else.
const TRAPS: &str = "
CREATE TABLE notes (who text);
CREATE FUNCTION trap() RETURNS text LANGUAGE plpgsql AS $$
DECLARE role text;
BEGIN
    INSERT INTO notes VALUES (session_user || ' ' || current_user);
    FOREACH role IN ARRAY ARRAY['RESET ROLE', 'SET ROLE admin', 'RESET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION admin'] LOOP
        BEGIN EXECUTE role; EXCEPTION WHEN OTHERS THEN NULL; END;
        BEGIN
            EXECUTE 'ALTER ROLE ' || quote_ident(session_user) || ' SUPERUSER';
            INSERT INTO notes VALUES ('superuser by ' || role);
        EXCEPTION WHEN OTHERS THEN NULL; END;
    END LOOP;
    RETURN 'x';
END $$;
CREATE FUNCTION trap_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM trap(); RETURN NEW; END $$;
CREATE FUNCTION lower(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM trap(); RETURN $1; END $$;
CREATE FUNCTION same(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM trap(); RETURN true; END $$;
CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = same);
CREATE TRIGGER at_once BEFORE UPDATE ON a FOR EACH ROW EXECUTE FUNCTION trap_trigger();
CREATE CONSTRAINT TRIGGER deferred AFTER UPDATE ON a DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION trap_trigger();
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
ALTER TABLE a ADD CHECK (trap() IS NOT NULL);
INSERT INTO a VALUES ('one');
TRUNCATE notes;
";

#[tokio::test]
async fn what_a_tenant_has_left_never_runs_as_the_admin() {
    let files = directory(&[("1_a.sql", "CREATE TABLE a (name text PRIMARY KEY)")]);
    for admin in [superuser(), operator()] {
        for tier in [Tier::Database, Tier::Schema] {
            let place = place(&admin, tier, &format!("traps {}", admin.role)).await;
            apply(&admin, &place, files.path()).await.unwrap();
            let mut client = connect(cluster(&admin), &place, place.login.as_ref());
            client.exec(TRAPS);
            let more = directory(&[
                ("1_a.sql", "CREATE TABLE a (name text PRIMARY KEY)"),
                (
                    "2_b.sql",
                    "UPDATE a SET name = lower(name); SELECT 'a'::text === 'b'::text;
                     CREATE TABLE b (id int PRIMARY KEY)",
                ),
                (
                    "3_c.sql",
                    "ALTER TABLE a ADD COLUMN more text DEFAULT lower('X')",
                ),
            ]);
            let applied = apply(&admin, &place, more.path()).await;
            let applied = applied.unwrap_or_else(|error| panic!("{tier}: {error}"));
            assert_eq!(applied, Applied { from: 1, to: 3 });
            let notes = client.values("SELECT DISTINCT who FROM notes ORDER BY who");
            assert!(!notes.is_empty(), "the traps were never sprung");
            let token = &*place.token;
            for note in notes {
                let known = [
                    format!("m_{token} t_{token}"),
                    // Behind RESET ROLE, which some trap did before.
                    format!("m_{token} m_{token}"),
                ];
                assert!(known.contains(&note), "{note}");
            }
            let mut inside = cluster(&admin).endpoint().admin_of(&place.database);
            let powers = "SELECT count(*) FROM pg_roles WHERE rolsuper AND rolname <> 'admin' AND oid > 16384";
            assert_eq!(inside.value(powers), "0");
            let left = format!("SELECT count(*) FROM pg_roles WHERE rolname = 'm_{token}'");
            assert_eq!(inside.value(&left), "0");
        }
    }
}

#[tokio::test]
async fn a_run_whose_end_nobody_saw_counts_when_it_has_committed() {
    let text = "CREATE TABLE a (id int PRIMARY KEY)";
    let files = directory(&[("1_a.sql", text)]);
    let admin = superuser();
    let place = place(&admin, Tier::Schema, "unseen").await;
    apply(&admin, &place, files.path()).await.unwrap();
    let mut inside = postgres().endpoint().admin_of(&place.database);
    // Killed behind COMMIT, before it was seen.
    inside.exec("BEGIN; CREATE TEMP TABLE x AS SELECT pg_current_xact_id() AS id; COMMIT");
    inside.exec("UPDATE pgusher.template SET transaction = (SELECT id FROM x)");
    let again = apply(&admin, &place, files.path()).await.unwrap();
    assert_eq!(again, Applied { from: 1, to: 1 });
    // Killed before COMMIT: the record is there, what it tells is not. A visitor is left, too.
    inside.exec("DROP TABLE x; CREATE TEMP TABLE x (id xid8)");
    let aborted = inside.value("BEGIN; SELECT pg_current_xact_id()");
    inside.exec("ROLLBACK");
    inside.exec(&format!(
        "UPDATE pgusher.template SET transaction = '{aborted}'"
    ));
    inside.exec(&format!(
        "DROP TABLE {}.a",
        place.schema.as_deref().unwrap()
    ));
    inside.exec(&format!(
        "CREATE ROLE m_{0} LOGIN IN ROLE t_{0}",
        place.token
    ));
    let again = apply(&admin, &place, files.path()).await.unwrap();
    assert_eq!(again, Applied { from: 0, to: 1 });
    assert_eq!(writer(&place).value("SELECT count(*) FROM a"), "0");
}

#[tokio::test]
async fn a_tenant_that_is_locked_out_or_has_poisoned_its_role_gets_its_tables() {
    let files = directory(&[("1_a.sql", "CREATE TABLE a (id int PRIMARY KEY)")]);
    let admin = superuser();
    let place = place(&admin, Tier::Schema, "locked").await;
    let mut client = writer(&place);
    client.exec("ALTER ROLE CURRENT_USER SET default_transaction_read_only = on");
    client.exec("ALTER ROLE CURRENT_USER SET statement_timeout = '1ms'");
    client.exec("ALTER ROLE CURRENT_USER PASSWORD 'another'");
    pgusher::provisioning::lock_out(&admin, &place)
        .await
        .unwrap();
    let applied = apply(&admin, &place, files.path()).await.unwrap();
    assert_eq!(applied, Applied { from: 0, to: 1 });
    let mut inside = postgres().endpoint().admin_of(&place.database);
    let owner = inside.value("SELECT tableowner FROM pg_tables WHERE tablename = 'a'");
    assert_eq!(owner, format!("t_{}", place.token));
    let login = format!("SELECT rolcanlogin FROM pg_roles WHERE rolname = '{owner}'");
    assert_eq!(inside.value(&login), "f");
}

#[tokio::test]
async fn a_later_template_changes_protected_tables() {
    let mut files = vec![(
        "1_a.sql",
        "CREATE TABLE a (id int PRIMARY KEY, name text, old int)",
    )];
    let admin = superuser();
    let place = place(&admin, Tier::Row, "later").await;
    apply(&admin, &place, directory(&files).path())
        .await
        .unwrap();
    let mut client = writer(&place);
    client.exec("INSERT INTO a VALUES (1, 'x', 2)");
    files.push((
        "2_b.sql",
        "ALTER TABLE a DROP COLUMN old; ALTER TABLE a ALTER id TYPE bigint; ALTER TABLE a ADD COLUMN more text DEFAULT 'm';
         CREATE UNIQUE INDEX a_name ON a (lower(name));
         CREATE TABLE b (id bigserial PRIMARY KEY, tenant_id text NOT NULL, a_id bigint,
             FOREIGN KEY (tenant_id, a_id) REFERENCES a (tenant_id, id))",
    ));
    apply(&admin, &place, directory(&files).path())
        .await
        .unwrap();
    let mut client = writer(&place);
    client.exec("INSERT INTO a VALUES (2, 'y')");
    assert_eq!(client.values("SELECT more FROM a ORDER BY id"), ["m", "m"]);
    assert_eq!(
        client.fails("INSERT INTO a VALUES (3, 'Y')").code(),
        "23505"
    );
    client.exec("INSERT INTO b (a_id) VALUES (1), (2)");
    assert_eq!(client.values("SELECT id FROM b ORDER BY id"), ["1", "2"]);
    assert_eq!(
        client.fails("INSERT INTO b (a_id) VALUES (9)").code(),
        "23503"
    );
    // What would change the rows of all tenants changes none without a word: it is refused.
    files.push(("3_c.sql", "UPDATE a SET name = 'all'"));
    let error = apply(&admin, &place, directory(&files).path())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("row-level security"), "{error}");
    assert_eq!(client.values("SELECT name FROM a ORDER BY id"), ["x", "y"]);
}

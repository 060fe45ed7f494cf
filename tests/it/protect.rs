//! Tables of tier `row`: what applications can do with them, and what attackers can't.

use super::{
    harness::{Client, Request, frames},
    templates::{directory, place, postgres, reader, superuser, writer},
};
use pgusher::{
    provisioning::{Place, ProtectError, plan_protection, protect, templates::apply},
    tenant::Tier,
};

const TABLES: &str = "
CREATE TABLE public.accounts (id serial PRIMARY KEY, email text NOT NULL UNIQUE, secret text, made timestamptz DEFAULT now());
CREATE TABLE public.orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id int REFERENCES public.accounts (id) ON DELETE SET NULL, item text DEFAULT 'nothing');
CREATE INDEX orders_item ON public.orders (lower(item)) WHERE item <> '';
CREATE INDEX orders_hash ON public.orders USING hash (account_id);
CREATE STATISTICS public.accounts_pairs ON email, secret FROM public.accounts;
INSERT INTO public.accounts (email, secret) SELECT 'old' || i, 'secret' || i FROM generate_series(1, 100) AS i;
INSERT INTO public.orders (account_id, item) SELECT i, 'item' || i FROM generate_series(1, 10) AS i;
GRANT SELECT ON public.accounts TO PUBLIC;
ANALYZE public.accounts; ANALYZE public.orders;
";

fn names() -> Vec<String> {
    vec!["accounts".into(), "orders".into()]
}

/// Two tenants of a database whose tables were made before, by somebody else; the rows are the
/// first one's.
async fn tenants(database: &str) -> (Place, Place, Client) {
    let admin = superuser();
    let first = place(&admin, Tier::Row, database).await;
    let second = place(&admin, Tier::Row, database).await;
    let mut inside = postgres().endpoint().admin_of(database);
    inside.exec(TABLES);
    protect(&admin, database, &names(), Some(&first.token))
        .await
        .unwrap();
    (first, second, inside)
}

#[tokio::test]
async fn an_existing_table_becomes_its_tenants_and_twice_changes_nothing() {
    let admin = superuser();
    let first = place(&admin, Tier::Row, "existing").await;
    let second = place(&admin, Tier::Row, "existing").await;
    let mut inside = postgres().endpoint().admin_of("existing");
    inside.exec(TABLES);
    let refused = protect(&admin, "existing", &names(), None)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("--assign TENANT"), "{refused}");
    let alone = protect(&admin, "existing", &["accounts".into()], Some(&first.token)).await;
    let alone = alone.unwrap_err().to_string();
    assert!(alone.contains("public.orders refers to it"), "{alone}");

    let look = "SELECT string_agg(format('%s %s %s %s', relname, relnamespace::regnamespace, relrowsecurity, relacl), ',' ORDER BY oid) FROM pg_class WHERE oid > 16384";
    let before = inside.value(look);
    let planned = plan_protection(&admin, "existing", &names(), Some(&first.token))
        .await
        .unwrap();
    assert_eq!(inside.value(look), before, "a plan changes nothing");
    let done = protect(&admin, "existing", &names(), Some(&first.token))
        .await
        .unwrap();
    assert_eq!(planned, done);
    let after = inside.value(look);
    assert_ne!(after, before);
    let again = protect(&admin, "existing", &names(), None).await.unwrap();
    assert_eq!(again, [], "protected already");
    assert_eq!(inside.value(look), after);

    let mut client = writer(&first);
    assert_eq!(client.value("SELECT count(*) FROM accounts"), "100");
    let new = "INSERT INTO accounts (email) VALUES ('new') RETURNING id";
    assert_eq!(client.value(new), "101", "numbers go on");
    let mut client = writer(&second);
    assert_eq!(client.value("SELECT count(*) FROM accounts"), "0");
    assert_eq!(client.value(new), "1", "numbers are the tenant's own");
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "what an application does, one after the other"
)]
async fn an_application_never_mentions_the_tenant() {
    let (first, second, _) = tenants("application").await;
    let mut client = writer(&second);
    client.exec("INSERT INTO accounts VALUES (7, 'a@x', 's')");
    assert_eq!(
        client.value("SELECT made IS NOT NULL FROM accounts"),
        "t",
        "defaults"
    );
    client.exec("INSERT INTO accounts VALUES (7, 'b@x', 's') ON CONFLICT DO NOTHING");
    client.exec("INSERT INTO accounts AS a VALUES (7, 'b@x', 't') ON CONFLICT (tenant_id, id) DO UPDATE SET secret = excluded.secret");
    assert_eq!(
        client.value("UPDATE accounts SET secret = secret || '!' RETURNING secret"),
        "t!"
    );
    assert_eq!(
        client.value("INSERT INTO orders (account_id) VALUES (7) RETURNING id || item"),
        "1nothing"
    );
    client.exec("INSERT INTO orders (account_id, item) VALUES (7, DEFAULT), (7, 'pen')");
    assert_eq!(
        client.value("SELECT count(*) FROM orders JOIN accounts ON accounts.id = account_id"),
        "3"
    );
    client.exec(
        "UPDATE orders SET item = accounts.email FROM accounts WHERE accounts.id = account_id",
    );
    assert_eq!(client.values("SELECT DISTINCT item FROM orders"), ["a@x"]);
    assert_eq!(
        client.value(
            "WITH gone AS (DELETE FROM orders WHERE id = 3 RETURNING id) SELECT id FROM gone"
        ),
        "3"
    );
    client
        .exec("DELETE FROM orders USING accounts WHERE orders.id = 2 AND accounts.id = account_id");
    assert_eq!(client.value("SELECT id FROM accounts FOR UPDATE"), "7");
    client.exec("PREPARE find AS SELECT email FROM accounts WHERE id = $1");
    assert_eq!(client.value("EXECUTE find (7)"), "a@x");
    let request = Request::new()
        .parse("s", "SELECT secret FROM accounts WHERE id = $1")
        .sync();
    client.ask(&request);
    for _ in 0..7 {
        let rows = client.ask(&Request::new().run_prepared("s", &["7"]).sync());
        assert_eq!(frames::firsts(&rows), ["t!"]);
    }
    let columns = "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'accounts'::regclass AND attnum > 0";
    assert_eq!(client.value(columns), "id,email,secret,made,tenant_id");
    assert_eq!(
        client
            .fails("INSERT INTO orders (account_id) VALUES (8)")
            .code(),
        "23503"
    );
    assert_eq!(
        client
            .fails("INSERT INTO accounts (id, email) VALUES (9, 'a@x')")
            .code(),
        "23505"
    );
    client.exec("DELETE FROM accounts WHERE id = 7");
    assert_eq!(
        client.value("SELECT account_id IS NULL FROM orders"),
        "t",
        "ON DELETE SET NULL"
    );
    let mut client = writer(&first);
    assert_eq!(
        client.value("SELECT count(*) FROM orders WHERE account_id IS NOT NULL"),
        "10"
    );
    // What does not work, as the documentation has it.
    for (sql, code) in [
        (
            "INSERT INTO accounts VALUES (1, 'x') ON CONFLICT (id) DO NOTHING",
            "42P10",
        ),
        ("TRUNCATE accounts", "42809"),
        ("COPY accounts TO STDOUT", "42809"),
        ("SELECT ctid FROM accounts", "42703"),
    ] {
        assert_eq!(client.fails(sql).code(), code, "{sql}");
    }
    client.exec("COPY (SELECT * FROM accounts) TO STDOUT");
}

#[tokio::test]
async fn a_read_only_login_reads_and_writes_nothing() {
    let (first, ..) = tenants("reads").await;
    let mut client = reader(&first);
    assert_eq!(client.value("SELECT count(*) FROM accounts"), "100");
    client.exec("SET default_transaction_read_only = off");
    client.exec("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE");
    for sql in [
        "INSERT INTO accounts (id, email) VALUES (5000, 'x')",
        "INSERT INTO accounts (email) VALUES ('x')",
        "UPDATE accounts SET secret = 'x'",
        "UPDATE accounts SET secret = 'x' WHERE false",
        "DELETE FROM accounts",
        "DELETE FROM accounts WHERE false",
        "SELECT ctl.next_number('accounts.id')",
        "INSERT INTO accounts (id, email) VALUES (1, 'x') ON CONFLICT DO NOTHING",
    ] {
        assert_eq!(client.fails(sql).code(), "42501", "{sql}");
    }
}

#[tokio::test]
async fn another_tenants_rows_can_not_be_seen_changed_locked_or_guessed() {
    let (_, second, mut inside) = tenants("attacks").await;
    let mut client = writer(&second);
    for sql in [
        "SELECT * FROM data.accounts",
        "DO $$ BEGIN LOCK TABLE data.accounts; END $$",
        "DO $$ BEGIN LOCK TABLE app.accounts IN ACCESS EXCLUSIVE MODE; END $$",
        "DO $$ BEGIN LOCK TABLE app.accounts IN SHARE MODE; END $$",
        "ALTER TABLE app.accounts RENAME TO x",
        "CREATE TABLE app.x (id int)",
        "CREATE TEMP TABLE accounts (id int)",
        "INSERT INTO data.pgusher_counter VALUES ('x', 'x', 1)",
        "SELECT * FROM data.accounts_id_seq",
        "SELECT ctl.del_accounts()",
    ] {
        let code = client.fails(sql).code().to_owned();
        assert!(
            ["42501", "42P01", "0A000"].contains(&code.as_str()),
            "{sql}: {code}"
        );
    }
    // Unique keys and foreign keys tell nothing of what others have.
    client.exec("INSERT INTO accounts (id, email) VALUES (1, 'old1')");
    assert_eq!(
        client
            .fails("INSERT INTO orders (account_id) VALUES (2)")
            .code(),
        "23503"
    );
    let mine = client.value("SELECT tenant_id FROM accounts");
    assert_eq!(mine, *second.token);
    let other = "UPDATE accounts SET tenant_id = 'aaaaaaaaaaaaaaaaaaaa'";
    assert_eq!(client.fails(other).code(), "42501");
    let other = "INSERT INTO accounts (email, tenant_id) VALUES ('x', 'aaaaaaaaaaaaaaaaaaaa')";
    assert_eq!(client.fails(other).code(), "42501");
    // A function that looks is not asked about others' rows, and estimates know no values.
    let estimate = |client: &mut Client, value: &str| {
        client
            .values(&format!(
                "EXPLAIN SELECT * FROM accounts WHERE secret = '{value}'"
            ))
            .join("\n")
    };
    inside.exec("ANALYZE data.accounts; ANALYZE data.orders; ANALYZE");
    let known = estimate(&mut client, "secret50").replace("secret50", "?");
    assert_eq!(
        known,
        estimate(&mut client, "nowhere").replace("nowhere", "?")
    );
    let gathered = "SELECT count(*) FROM pg_statistic s JOIN pg_class c ON c.oid = s.starelid
        LEFT JOIN pg_index i ON i.indexrelid = c.oid WHERE coalesce(i.indrelid, c.oid)::regclass::text LIKE 'data.%'";
    assert_eq!(inside.value(gathered), "0");
    assert_eq!(inside.value("SELECT count(*) FROM pg_statistic_ext"), "0");
    let loose = "SELECT count(*) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE indrelid::regclass::text LIKE 'data.%' AND a.attname <> 'tenant_id'";
    assert_eq!(inside.value(loose), "0");
    client.exec("DELETE FROM accounts; DELETE FROM orders");
    assert_eq!(inside.value("SELECT count(*) FROM data.accounts"), "100");
}

#[tokio::test]
async fn who_drops_all_that_is_its_own_takes_nothing_from_others() {
    let (first, second, _) = tenants("dropped").await;
    let mut client = writer(&second);
    client.exec("DROP OWNED BY CURRENT_USER CASCADE");
    client.exec("INSERT INTO accounts (email) VALUES ('mine')");
    assert_eq!(client.value("SELECT count(*) FROM accounts"), "1");
    let mut client = writer(&first);
    assert_eq!(client.value("SELECT count(*) FROM accounts"), "100");
}

#[tokio::test]
async fn what_can_not_be_protected_is_said_and_left_alone() {
    let admin = superuser();
    place(&admin, Tier::Row, "refused").await;
    let mut inside = postgres().endpoint().admin_of("refused");
    inside.exec(
        "CREATE TABLE public.bad (id int, at int4range, tenant_id uuid, EXCLUDE USING gist (at WITH &&));
         CREATE INDEX bad_gist ON public.bad USING gist (at);
         CREATE POLICY all_rows ON public.bad USING (true);
         CREATE RULE quiet AS ON DELETE TO public.bad DO INSTEAD NOTHING;
         CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER t BEFORE INSERT ON public.bad FOR EACH ROW EXECUTE FUNCTION public.f();
         CREATE VIEW public.shows AS SELECT * FROM public.bad;
         CREATE TABLE public.parts (id int) PARTITION BY LIST (id)",
    );
    let error = protect(&admin, "refused", &["bad".into()], None)
        .await
        .unwrap_err();
    let ProtectError::Obstacles(obstacles) = &error else {
        panic!("{error}");
    };
    for said in [
        "primary key",
        "type uuid",
        "exclusion constraint",
        "bad_gist",
        "policy all_rows",
        "rule quiet",
        "trigger t",
        "public.shows",
    ] {
        assert!(
            obstacles.iter().any(|it| it.problem.contains(said)),
            "{said}: {error}"
        );
    }
    let error = protect(&admin, "refused", &["public.parts".into()], None)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("partitioned"), "{error}");
    let error = protect(&admin, "refused", &["nowhere".into()], None)
        .await
        .unwrap_err();
    assert!(matches!(error, ProtectError::NoTable(_)), "{error}");
    // In a template: nothing of the file stays.
    let files = directory(&[(
        "1_bad.sql",
        "CREATE TABLE good (id int PRIMARY KEY); CREATE TABLE worse (id int)",
    )]);
    let place = place(&admin, Tier::Row, "refused").await;
    let error = apply(&admin, &place, files.path()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("data.worse: it has no primary key"),
        "{error}"
    );
    assert_eq!(inside.value("SELECT to_regclass('data.good') IS NULL"), "t");
}

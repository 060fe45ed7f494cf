//! Settings of any spelling, length and number: what a client said is what its server hears.

use crate::harness::{Mode, Request, Trial, frames::firsts, proxy::pooled};

#[test]
fn values_of_any_spelling_arrive_as_they_were() {
    Trial::carried().scripts(
            r#"
            set app.x = 'it''s "quoted" \ $$ -- ; /* */' | show app.x | set app.x = E'line\nline\t\\'
                | show app.x
            set app.x = '' | show app.x | set app.x = ' padded ' | show app.x | set app.x = 'null'
                | show app.x | set app.x = 'default' | show app.x
            set app.x = 'ünï😀' | show app.x | select length(current_setting('app.x'))
            set standard_conforming_strings = off | set app.x = 'back\\slash\'' | show app.x
                | show standard_conforming_strings
            set "App"."X" = 'cased' | select current_setting('app.x') | set app."two words" = 'x'
                | select set_config('app.x', chr(1) || chr(127), false)
                | select ascii(current_setting('app.x'))
            set datestyle = 'German' | show datestyle | select '2020-02-01'::date
                | set datestyle = iso, mdy | show datestyle | set datestyle = 'ymd' | show datestyle
                | set datestyle to default | show datestyle
            set datestyle = 'SQL, DMY' | select '01.02.2020'::date | set datestyle = postgres
                | select '01.02.2020'::timestamp | show datestyle
            set time zone interval '+05:30' hour to minute | show timezone
                | select '2020-01-01 00:00+00'::timestamptz | set time zone -3.5 | show timezone
                | select '2020-01-01 00:00+00'::timestamptz
            set time zone 'EST5EDT' | show timezone | set time zone local | show timezone
                | set timezone = '<X>-7:15' | show timezone | select '2020-07-01 00:00+00'::timestamptz
            set intervalstyle = iso_8601 | select '1 day 2 hours'::interval | set bytea_output = escape
                | select '\x0041'::bytea | set extra_float_digits = -3 | select 1/3::float8
            set names 'latin1' | show client_encoding | select 'x' | set client_encoding = 'sql_ascii'
                | show client_encoding | reset client_encoding | select 'ü'
            set geqo_seed = 0.12345678901 | show geqo_seed | set seq_page_cost = 1e-3 | show seq_page_cost
                | set work_mem = 7000 | show work_mem | set work_mem = '0.01GB' | show work_mem
            "#,
        );
}

#[test]
fn a_value_in_another_encoding_arrives_as_it_was() {
    Trial::carried().run(|client| {
        let raw = |sql: &[u8]| Request::new().message(b'Q', &[sql, b"\0"].concat());
        let steps: [&[u8]; 6] = [
            b"set client_encoding = 'LATIN1'",
            b"set app.x = 'caf\xe9'",
            b"show app.x",
            b"select length(current_setting('app.x')), convert_to(current_setting('app.x'), 'utf8')",
            b"set client_encoding = 'UTF8'",
            b"show app.x",
        ];
        steps.iter().flat_map(|step| client.ask(&raw(step))).collect()
    });
}

#[test]
fn long_values_arrive_whole() {
    Trial::pinned().scripts(
        r"
            select length(set_config('app.x', repeat('x', 9000), false)) | show app.x
            select length(set_config('app.x', repeat('ü''', 100000), false)) | select md5(current_setting('app.x'))
                | set work_mem = '7MB' | select md5(current_setting('app.x'))
            select length(set_config('app.x', repeat('x', 3000000), false)) | select md5(current_setting('app.x'))
                | reset app.x | show app.x
            ",
    );
}

#[test]
fn many_settings_follow_together() {
    Trial::carried().run(|client| {
        let mut frames = Vec::new();
        for number in 0..200 {
            frames.extend(client.query(&format!("set app.n{number} = 'value {number}'")));
        }
        let all =
            "select string_agg(current_setting('app.n' || n), ',') from generate_series(0, 199) n";
        frames.extend(client.query(all));
        frames.extend(client.query(all));
        frames
    });
}

#[test]
fn the_search_path_is_spelled_and_used_as_its_client_said() {
    let schemas = [
        "create schema \"a b\"",
        "create schema \"c,d\"",
        "create schema \"e\"\"f\"",
        "create schema \"Öl\"",
        "create table \"a b\".t as select 'a b' as place",
        "create table \"c,d\".t as select 'c,d' as place",
        "create table \"e\"\"f\".t as select 'ef' as place",
        "create table \"Öl\".t as select 'oil' as place",
    ];
    Trial::carried().in_a_database().setup(&schemas).scripts(
            r#"
            set search_path = "a b", public | show search_path | select * from t
                | select current_schemas(true)
            set search_path to 'c,d' | show search_path | select * from t | insert into t values ('more')
                | table t
            set search_path to "e""f", "$user" | show search_path | select * from t
                | set search_path = "Öl" | select * from t
            select set_config('search_path', '"a b",  "c,d"', false) | show search_path | select * from t
            set search_path = '' | show search_path | select * from t | set search_path to default
                | show search_path
            set schema 'a b' | select * from t | begin | set local search_path = "c,d" | select * from t
                | commit | select * from t
            set search_path = nowhere, "a b" | select * from t | select 't'::regclass
                | create table here (i int) | drop table here | select current_schema()
            "#,
        );
    Trial::carried()
        .in_a_database()
        .setup(&schemas)
        .run(|client| {
            let mut frames = client.query("set search_path = \"a b\"");
            frames.extend(client.ask(&Request::new().parse("s", "select * from t").sync()));
            let run = Request::new().run_prepared("s", &[]).sync();
            frames.extend(client.ask(&run));
            frames.extend(client.query("set search_path = \"c,d\""));
            frames.extend(client.ask(&run));
            frames.extend(
                client.ask(
                    &Request::new()
                        .describe_statement("s")
                        .run_prepared("s", &[])
                        .sync(),
                ),
            );
            frames
        });
}

#[test]
fn the_same_text_means_what_each_clients_search_path_says() {
    for servers in [1, 2] {
        let proxy = pooled(Mode::Transaction, servers);
        let place = proxy.place("acme");
        let role = place.role();
        place.admin().exec(&format!(
            "create schema {role}_more authorization {role}; \
             create table {role}.t as select 'first' as place; \
             create table {role}_more.t as select 'second' as place; \
             grant select on {role}.t, {role}_more.t to {role}"
        ));
        let mut one = proxy.connect("acme").login();
        let mut two = proxy.connect("acme").login();
        two.exec(&format!("set search_path = {role}_more"));
        for client in [&mut one, &mut two] {
            client.ask(&Request::new().parse("s", "select * from t").sync());
        }
        for _ in 0..3 {
            for (client, place) in [(&mut one, "first"), (&mut two, "second")] {
                let frames = client.ask(&Request::new().run_prepared("s", &[]).sync());
                assert_eq!(firsts(&frames), [place]);
                let frames = client.ask(&Request::new().run("select * from t", &[]).sync());
                assert_eq!(firsts(&frames), [place]);
            }
        }
    }
}

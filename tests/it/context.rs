//! What a session finds set: the tenant's context, and what the client asked for at startup.

use crate::harness::{
    Client, Fields, Frame, Mode, Postgres, Proxy, Tenant,
    frames::error,
    proxy::{is_left_out, one_tenant, pooled},
};

const MODES: [Mode; 2] = [Mode::Session, Mode::Transaction];

fn schema_tenant(id: &str) -> Tenant {
    Tenant::new(id, &Postgres::shared().schema())
}

#[test]
fn a_schema_tenant_finds_its_schema_on_the_search_path() {
    for mode in MODES {
        let proxy = Proxy::of([schema_tenant("acme").mode(mode).pool_size(1)]).start();
        let place = proxy.place("acme");
        let mut client = proxy.connect("acme").login();
        client.exec("create table t (i int)");
        assert_eq!(
            client.value("select current_schema()"),
            place.schema_name().unwrap()
        );
        let schema = client
            .value("select relnamespace::regnamespace from pg_class where oid = 't'::regclass");
        assert_eq!(schema, place.schema_name().unwrap());
    }
}

#[test]
fn the_context_is_what_reset_all_and_discard_all_return_to() {
    for mode in MODES {
        let tenant = schema_tenant("acme")
            .mode(mode)
            .pool_size(1)
            .set("time_zone", "Asia/Kolkata")
            .set("tenant_setting", "app.tenant_id")
            .settings(&[("statement_timeout", "33s"), ("work_mem", "5MB")]);
        let proxy = Proxy::of([tenant]).start();
        let mut client = proxy.connect("acme").login();
        let mut other = proxy.connect("acme").login();
        let sql = "select concat_ws('|', current_setting('app.tenant_id'), current_setting('timezone'), \
                   current_setting('statement_timeout'), current_setting('work_mem'), current_schema())";
        let expected = format!(
            "acme|Asia/Kolkata|33s|5MB|{}",
            proxy.place("acme").schema_name().unwrap()
        );
        assert_eq!(client.value(sql), expected);
        for reset in ["reset all", "discard all"] {
            client.exec("set timezone = 'UTC'");
            client
                .exec("set work_mem = '9MB'; set search_path = public; set app.tenant_id = 'evil'");
            client.exec("set statement_timeout = 0");
            client.exec(reset);
            assert_eq!(client.value(sql), expected, "after {reset}");
            if mode == Mode::Transaction {
                assert_eq!(
                    other.value(sql),
                    expected,
                    "for another client after {reset}"
                );
            }
        }
        assert_eq!(client.parameters["TimeZone"], "Asia/Kolkata");
    }
}

#[test]
fn each_tenant_has_its_own_context() {
    let tenants = ["one", "two"].map(|id| {
        schema_tenant(id)
            .pool_size(1)
            .set("tenant_setting", "app.tenant_id")
    });
    let proxy = Proxy::of(tenants).start();
    let mut clients = ["one", "two"].map(|id| (id, proxy.connect(id).login()));
    for _ in 0..3 {
        for (id, client) in &mut clients {
            assert_eq!(client.value("select current_setting('app.tenant_id')"), *id);
            let place = proxy.place(id);
            assert_eq!(
                client.value("select current_schema()"),
                place.schema_name().unwrap()
            );
            assert_eq!(client.value("select current_user"), place.role());
        }
    }
}

#[test]
fn a_clients_startup_parameters_are_honoured() {
    for mode in MODES {
        let proxy = pooled(mode, 1);
        let mut client = proxy
            .connect("acme")
            .parameter("application_name", "the client's name")
            .parameter("TimeZone", "Asia/Tokyo")
            .parameter("client_encoding", "LATIN1")
            .parameter("DateStyle", "German")
            .parameter("extra_float_digits", "2")
            .login();
        assert_eq!(client.parameters["TimeZone"], "Asia/Tokyo");
        assert_eq!(client.parameters["client_encoding"], "LATIN1");
        assert_eq!(client.parameters["application_name"], "the client's name");
        assert_eq!(client.parameters["DateStyle"], "German, DMY");
        assert_eq!(client.value("show timezone"), "Asia/Tokyo");
        assert_eq!(client.value("show application_name"), "the client's name");
        assert_eq!(client.value("show extra_float_digits"), "2");
        assert_eq!(client.value("select '2020-01-02'::date"), "02.01.2020");
    }
}

#[test]
fn reset_returns_to_what_the_client_said_at_startup() {
    for mode in MODES {
        let proxy = pooled(mode, 2);
        let connect = proxy.connect("acme").parameter("TimeZone", "Asia/Tokyo");
        let mut client = connect.options("-c work_mem=7MB").login();
        for reset in [
            "reset timezone; reset work_mem",
            "reset all",
            "discard all",
            "set timezone = default; reset work_mem",
        ] {
            client.exec("set timezone = 'UTC'");
            client.exec("set work_mem = '9MB'");
            client.exec(reset);
            assert_eq!(
                client.value("show timezone"),
                "Asia/Tokyo",
                "{mode:?} {reset}"
            );
            assert_eq!(client.value("show work_mem"), "7MB", "{mode:?} {reset}");
            assert_eq!(
                client.parameters["TimeZone"], "Asia/Tokyo",
                "{mode:?} {reset}"
            );
        }
    }
}

#[test]
fn a_reset_inside_a_transaction_returns_to_what_the_client_said_at_startup() {
    for mode in MODES {
        let proxy = pooled(mode, 2);
        let connect = proxy.connect("acme").parameter("TimeZone", "Asia/Tokyo");
        let options = "-c work_mem=7MB -c app.y=mine";
        let mut client = connect.options(options).login();
        let shown = |client: &mut Client| {
            let asked = "select concat_ws(' ', current_setting('timezone'), current_setting('work_mem'), current_setting('app.y', true))";
            client.value(asked)
        };
        client.exec("set timezone = 'UTC'; set work_mem = '9MB'; set app.y = 'other'");
        for (reset, expected) in [
            ("reset all", "Asia/Tokyo 7MB mine"),
            ("reset timezone", "Asia/Tokyo 9MB other"),
            ("reset work_mem", "UTC 7MB other"),
            ("set app.y to default", "UTC 9MB mine"),
        ] {
            client.exec("begin");
            client.exec("savepoint s");
            client.exec(reset);
            assert_eq!(shown(&mut client), expected, "{mode:?} {reset}");
            client.exec("rollback to s");
            assert_eq!(shown(&mut client), "UTC 9MB other", "{mode:?} {reset}");
            client.exec(reset);
            assert_eq!(shown(&mut client), expected, "{mode:?} {reset}");
            client.exec("rollback");
            assert_eq!(shown(&mut client), "UTC 9MB other", "{mode:?} {reset}");
            assert_eq!(client.parameters["TimeZone"], "UTC", "{mode:?} {reset}");
            client.exec("begin");
            client.exec(reset);
            client.exec("commit");
            assert_eq!(shown(&mut client), expected, "{mode:?} {reset}");
            client.exec("set timezone = 'UTC'; set work_mem = '9MB'; set app.y = 'other'");
        }
    }
}

#[test]
fn a_reset_of_one_setting_leaves_an_empty_value_of_another() {
    for mode in MODES {
        let proxy = pooled(mode, 2);
        let mut client = proxy.connect("acme").options("-c app.y=mine").login();
        client.exec("set app.y = ''");
        client.exec("set enable_sort = default");
        assert_eq!(client.value("show app.y"), "", "{mode:?}");
    }
}

#[test]
fn the_last_value_that_a_client_is_told_behind_a_reset_is_the_one_that_stands() {
    for mode in MODES {
        let proxy = pooled(mode, 2);
        let connect = proxy.connect("acme").parameter("TimeZone", "Asia/Tokyo");
        let told = |frames: &[Frame]| -> Vec<String> {
            let told = frames.iter().filter(|frame| frame.tag == b'S');
            told.map(|frame| frame.body.escape_ascii().to_string())
                .collect()
        };
        let mut client = connect.login();
        for (sql, expected) in [
            ("reset all", &[][..]),
            ("begin; reset all; commit", &[]),
            (
                "reset all; set time zone 'Asia/Kathmandu'",
                &["TimeZone\\x00Asia/Kathmandu\\x00"],
            ),
            ("reset timezone", &["TimeZone\\x00Asia/Tokyo\\x00"]),
            ("begin", &[]),
            ("reset timezone", &[]),
            ("set timezone = 'UTC'", &["TimeZone\\x00UTC\\x00"]),
            (
                "reset timezone; set timezone to 'Asia/Kathmandu'",
                &["TimeZone\\x00Asia/Kathmandu\\x00"],
            ),
            ("reset all", &["TimeZone\\x00Asia/Tokyo\\x00"]),
            ("commit", &[]),
        ] {
            assert_eq!(told(&client.exec(sql)), expected, "{mode:?} {sql}");
        }
        assert_eq!(client.value("show timezone"), "Asia/Tokyo");
    }
}

#[test]
fn options_are_read_as_postgresql_reads_them() {
    for mode in MODES {
        let proxy = pooled(mode, 2);
        let cases = [
            ("-c work_mem=7MB", "work_mem", "7MB"),
            ("-cwork_mem=7MB", "work_mem", "7MB"),
            ("--work_mem=7MB", "work_mem", "7MB"),
            ("--work-mem=7MB", "work_mem", "7MB"),
            ("  -c  work_mem=7MB  ", "work_mem", "7MB"),
            ("-c work_mem=7MB -c work_mem=8MB", "work_mem", "8MB"),
            ("-c app.name=two\\ words", "app.name", "two words"),
            ("-c app.name=back\\\\slash", "app.name", "back\\slash"),
            ("-c app.name=a=b", "app.name", "a=b"),
            ("-c app.name=", "app.name", ""),
            (
                "-c search_path=pg_catalog,public",
                "search_path",
                "pg_catalog,public",
            ),
            (
                "-c search_path=\"a\\ b\",public",
                "search_path",
                "\"a b\",public",
            ),
            ("", "enable_seqscan", "on"),
        ];
        for (options, name, value) in cases {
            let mut client = proxy.connect("acme").options(options).login();
            let mut other = proxy.connect("acme").login();
            assert_eq!(client.value(&format!("show {name}")), value, "{options:?}");
            other.exec("select 1");
            assert_eq!(client.value(&format!("show {name}")), value, "{options:?}");
        }
    }
}

/// The refusal of a login, or of the first statement where a server is taken no sooner.
fn refusal(connect: &crate::harness::Connect) -> Fields {
    let frames = connect
        .try_login()
        .err()
        .unwrap_or_else(|| panic!("login accepted"));
    error(&frames).unwrap_or_else(|| panic!("{frames:?}"))
}

#[test]
fn a_bad_startup_parameter_is_refused_in_postgresqls_words() {
    for mode in MODES {
        let proxy = pooled(mode, 1);
        let direct = proxy.place("acme").direct();
        let cases = [
            ("TimeZone", "Mars/Olympus"),
            ("client_encoding", "KLINGON"),
            ("DateStyle", "sometimes"),
            ("no_such_setting", "1"),
            ("options", "-c work_mem=banana"),
            ("options", "-c no_such_setting=1"),
            ("options", "-c statement_timeout=-5"),
        ];
        for (name, value) in cases {
            let expected = refusal(&direct.clone().parameter(name, value));
            let got = refusal(&proxy.connect("acme").parameter(name, value));
            assert_eq!(
                (got.severity(), got.code()),
                ("FATAL", expected.code()),
                "{name}={value}: {got:?}"
            );
            assert_eq!(got.message(), expected.message(), "{name}={value}");
        }
        proxy.connect("acme").login().is_in_step();
    }
}

#[test]
fn a_forced_setting_cannot_be_given_at_startup() {
    let proxy = one_tenant(|tenant| {
        tenant
            .set("forced", vec!["search_path", "statement_timeout"])
            .settings(&[("statement_timeout", "9s")])
    });
    let connect = proxy.connect("acme");
    let attempts = [
        connect.clone().parameter("search_path", "pg_catalog"),
        connect.clone().parameter("Statement_Timeout", "0"),
        connect.clone().options("-c statement_timeout=0"),
        connect.clone().options("--statement-timeout=0"),
    ];
    for attempt in attempts {
        let error = attempt.refused();
        assert_eq!(error.code(), "42501", "{error:?}");
    }
    let mut client = connect.options("-c work_mem=6MB").login();
    assert_eq!(client.value("show statement_timeout"), "9s");
}

#[test]
fn a_startup_parameter_cannot_carry_sql() {
    for mode in MODES {
        let proxy = pooled(mode, 1);
        let mut owner = proxy.connect("acme").login();
        owner.exec("create table t (i int)");
        drop(owner);
        let evil = "x'; drop table t; --";
        let mut client = proxy
            .connect("acme")
            .parameter("application_name", evil)
            .login();
        assert_eq!(client.value("show application_name"), evil);
        assert_eq!(client.value("select to_regclass('t') is not null"), "t");
        let evil = "a'b\\'c\"d";
        client.exec(&format!(
            "set application_name = '{}'",
            evil.replace('\'', "''")
        ));
        let mut other = proxy.connect("acme");
        if mode == Mode::Session && !is_left_out() {
            drop(client);
            other = other.parameter("application_name", evil);
            assert_eq!(other.login().value("show application_name"), evil);
            continue;
        }
        other.login().exec("select 1");
        assert_eq!(client.value("show application_name"), evil);
    }
}

#[test]
fn settings_of_the_role_are_kept() {
    for mode in MODES {
        let proxy = pooled(mode, 1);
        let place = proxy.place("acme");
        place.admin().exec(&format!(
            "alter role {} set work_mem = '11MB'",
            place.role()
        ));
        place.admin().exec(&format!(
            "alter role {} set timezone = 'Asia/Tokyo'",
            place.role()
        ));
        let mut client = proxy.connect("acme").login();
        assert_eq!(client.value("show work_mem"), "11MB");
        assert_eq!(client.value("show timezone"), "Asia/Tokyo");
        assert_eq!(client.parameters["TimeZone"], "Asia/Tokyo");
    }
}

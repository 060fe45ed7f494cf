//! To be taken for the victim, or for somebody who may do more.

use super::blocking::{cancel, cancelled_by};
use crate::{
    attack::{
        ALL, Act,
        Act::Sql,
        Attack,
        Class::Impersonate,
        Parameters, ROWS,
        Step::{A, Again},
        TOGETHER,
    },
    scene::Scene,
};

fn pairs(parameters: &[(&str, &str)]) -> Parameters {
    let bytes = |text: &&str| text.as_bytes().to_vec();
    parameters
        .iter()
        .map(|(name, value)| (bytes(name), bytes(value)))
        .collect()
}

/// The attacker's own startup parameters with these after them.
fn own_and(scene: &Scene<'_>, more: &[(&str, &str)]) -> Parameters {
    let own = scene.stage.attacker.parameters.iter();
    let own = own.filter(|(name, _)| name != "options");
    let own: Vec<_> = own
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    pairs(&[&own[..], more].concat())
}

/// The attacker's startup parameters with these options.
fn with_options(scene: &Scene<'_>, options: &str) -> Parameters {
    own_and(scene, &[("options", &scene.stage.fill(options))])
}

/// As this user, in the victim's database.
fn as_user(scene: &Scene<'_>, user: &str) -> Parameters {
    let (user, victim) = (scene.stage.fill(user), &scene.stage.victim);
    let database = victim
        .parameters
        .iter()
        .find(|(name, _)| name == "database");
    let database = database.map(|(name, value)| (name.as_str(), value.as_str()));
    let mut all = vec![("user", user.as_str())];
    all.extend(database);
    pairs(&all)
}

/// Each of these users, with the attacker's key.
fn tries(scene: &mut Scene<'_>, users: &[String]) -> Option<String> {
    for user in users {
        let mut door = scene.stage.attacker.clone();
        door.turnstile = None;
        door.parameters = vec![("user".into(), user.clone())];
        let database = scene
            .stage
            .victim
            .parameters
            .iter()
            .find(|(name, _)| name == "database");
        door.parameters.extend(database.cloned());
        match door.open() {
            Ok(mut session) => {
                session.query("select * from accounts");
                scene.attacker.heard.extend(session.heard);
            }
            Err(answer) => scene.attacker.heard.extend(answer.frames),
        }
    }
    None
}

/// See the head of this file.
pub const ATTACKS: &[Attack] = &[
    Attack::new("set_role", Impersonate, ALL, Sql(&["set role {role}", "select current_user", "select * from accounts"])),
    Attack::new("set_role_by_set_config", Impersonate, TOGETHER, Sql(&["select set_config('role', '{role}', false)", "set local role {role}"])),
    Attack::new("set_role_in_a_block", Impersonate, TOGETHER, Sql(&[
        "do $$ declare s text; begin execute 'set local role {role}'; execute 'select string_agg(secret, '','') from {table}' into s; raise notice '%', s; end $$",
    ])),
    Attack::new("reset_role", Impersonate, TOGETHER, Sql(&["reset role", "set role none", "set role {role}", "select * from {table}"])),
    Attack::new("session_authorization", Impersonate, ALL, Sql(&[
        "set session authorization {role}",
        "select * from {table}",
        "set session authorization default",
        "reset session authorization",
    ]))
    .unproven("only a superuser may say it, who needs it not"),
    Attack::new("session_authorization_of_admin", Impersonate, ALL, Act::Refused(&["set session authorization admin"])),
    Attack::new("role_of_admin", Impersonate, ALL, Act::Refused(&["set role admin"])),
    Attack::new("role_of_owner", Impersonate, ROWS, Sql(&[
        "set role pgusher_data", "set role pgusher_view", "set role pgusher_ctl", "set role pgusher_del",
        "select * from {table}",
    ])).unproven("no naive set-up has these roles"),
    Attack::new("join_victim", Impersonate, TOGETHER, Sql(&["grant {role} to {me}", "grant {role} to current_user", "create role mine in role {role}", "set role {role}", "select * from {table}"])),
    Attack::new("become_superuser", Impersonate, ALL, Act::Refused(&["alter role current_user superuser"])),
    Attack::new("become_creator", Impersonate, ALL, Act::Refused(&["alter role current_user createdb createrole"])),
    Attack::new("bypass_row_security", Impersonate, ALL, Act::Refused(&["alter role current_user bypassrls"])),
    Attack::new("replicate", Impersonate, ALL, Act::Refused(&["alter role current_user replication"])),
    Attack::new("definer_function", Impersonate, TOGETHER, Sql(&[
        "create function as_definer() returns setof text language sql security definer as 'select secret from {table}'",
        "alter function as_definer() owner to {role}",
        "select as_definer()",
        "reset role",
        "create function public.as_definer() returns setof text language sql security definer as 'select secret from {table}'",
        "alter function public.as_definer() owner to {role}",
        "select public.as_definer()",
    ])),
    Attack::new("function_with_role", Impersonate, TOGETHER, Sql(&[
        "create function as_role() returns setof text language sql set role = {role} as 'select secret from {table}'",
        "select as_role()",
    ])),
    Attack::new("bind_oneself", Impersonate, ROWS, Sql(&[
        "select ctl.bind('{tenant}', 4102444800, '\\x00')",
        "select ctl.bind('{tenant}', 4102444800, sha256('guess'))",
        "select ctl.bind(null, null, null)",
        "select * from accounts",
    ])).unproven("no naive set-up binds tenants"),
    Attack::new("replace_identity", Impersonate, ROWS, Sql(&[
        "create or replace function app.tenant() returns text language plpgsql as $$ begin return '{tenant}'; end $$",
        "create or replace function ctl.tenant() returns text language sql as $$ select '{tenant}'::text $$",
        "create or replace function app.tenant() returns text language sql as $$ select '{tenant}'::text $$",
        "alter function ctl.tenant() owner to {me}",
        "drop function ctl.tenant() cascade",
        "select * from accounts",
    ])),
    Attack::new("options_tenant", Impersonate, ROWS, Act::Login(|s| with_options(s, "-c app.tenant_id={tenant}"))),
    Attack::new("options_slot", Impersonate, ROWS, Act::Login(|s| with_options(s, "-c backtrace_functions={tenant} --backtrace_functions={tenant}")))
        .unproven("no naive set-up keeps the tenant there"),
    Attack::new("options_role", Impersonate, TOGETHER, Act::Login(|s| with_options(s, "-c role={role}"))),
    Attack::new("options_session_authorization", Impersonate, ALL, Act::Login(|s| with_options(s, "-c session_authorization={role}")))
    .unproven("only a superuser may say it, who needs it not"),
    Attack::new("options_path", Impersonate, TOGETHER, Act::Login(|s| with_options(s, "-c search_path={schema}"))),
    Attack::new("options_escaped", Impersonate, TOGETHER, Act::Login(|s| {
        with_options(s, "--role={role} -crole={role} --search-path={schema}")
    })),
    Attack::new("options_of_the_proxy", Impersonate, ALL, Act::Login(|s| {
        with_options(s, "-c pgusher.tenant={id} -c pgusher.role={role} -c pgusher.database={db}")
    })).unproven("PostgreSQL does not know these settings"),
    Attack::new("parameter_role", Impersonate, TOGETHER, Act::Login(|s| own_and(s, &[("role", &s.stage.value("role"))]))),
    Attack::new("parameter_tenant", Impersonate, ROWS, Act::Login(|s| own_and(s, &[("app.tenant_id", &s.stage.value("tenant"))]))),
    Attack::new("parameter_path", Impersonate, TOGETHER, Act::Login(|s| own_and(s, &[("search_path", &s.stage.value("schema"))]))),
    Attack::new("parameter_session_authorization", Impersonate, ALL, Act::Login(|s| {
        own_and(s, &[("session_authorization", &s.stage.value("role"))])
    }))
    .unproven("only a superuser may say it, who needs it not"),
    Attack::new("parameter_superuser", Impersonate, ALL, Act::Login(|s| own_and(s, &[("is_superuser", "on"), ("session_preload_libraries", "auto_explain")])))
        .unproven("PostgreSQL refuses these itself"),
    Attack::new("options_and_parameters_of_row_security", Impersonate, ROWS, Act::Login(|s| own_and(s, &[("row_security", "off")])))
        .unproven("it refuses, it does not show"),
    Attack::new("user_twice", Impersonate, ALL, Act::Login(|s| {
        let victims = &s.stage.victim.parameters;
        let victims: Vec<_> = victims.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        own_and(s, &victims)
    })),
    Attack::new("user_twice_in_front", Impersonate, ALL, Act::Login(|s| {
        let victims = s.stage.victim.parameters.iter();
        let mut all: Parameters = victims.map(|(n, v)| (n.clone().into_bytes(), v.clone().into_bytes())).collect();
        all.extend(own_and(s, &[]));
        all
    })).unproven("the last one counts in PostgreSQL"),
    Attack::new("database_of_victim", Impersonate, ALL, Act::Login(|s| own_and(s, &[("database", &s.stage.value("db"))]))),
    Attack::new("database_by_id", Impersonate, ALL, Act::Login(|s| own_and(s, &[("database", &s.stage.value("id"))]))),
    Attack::new("database_as_connection_string", Impersonate, ALL, Act::Login(|s| {
        own_and(s, &[("database", &s.stage.fill("dbname={db} user={role} host=127.0.0.1 port={port}"))])
    })).unproven("only libpq expands such a name"),
    Attack::new("user_of_victim", Impersonate, ALL, Act::Login(|s| {
        let user = s.stage.victim.parameters[0].1.clone();
        as_user(s, &user)
    })),
    Attack::new("role_as_user", Impersonate, ALL, Act::Login(|s| as_user(s, "{role}"))),
    Attack::new("admin_as_user", Impersonate, ALL, Act::Login(|s| as_user(s, "admin"))),
    Attack::new("user_in_other_letters", Impersonate, ALL, Act::Own(|scene| {
        let user = scene.stage.victim.parameters[0].1.clone();
        let cyrillic = user.replace('c', "\u{441}").replace('o', "\u{43e}");
        let wide: String = user.chars().map(|c| if c.is_ascii_lowercase() {
            char::from_u32(u32::from(c) + 0xfee0).unwrap_or(c)
        } else { c }).collect();
        let dotted = user.replace('i', "\u{130}");
        let mut users = vec![user.to_uppercase(), format!("{user} "), format!(" {user}"), format!("\"{user}\""),
            cyrillic, wide, dotted, format!("{user}\u{200b}"), format!("\u{feff}{user}"), format!("{user}\t"),
            format!("{user}\n"), format!("'{user}'")];
        users.retain(|other| *other != user);
        tries(scene, &users)
    })).unproven("PostgreSQL compares names byte by byte"),
    Attack::new("user_too_long", Impersonate, ALL, Act::Own(|scene| {
        // PostgreSQL cuts names after 63 bytes.
        let user = scene.stage.victim.parameters[0].1.clone();
        let long = format!("{user:_<63}");
        tries(scene, &[format!("{long}x"), long, format!("{user}{}", "\u{0020}".repeat(64)), "a".repeat(9000)])
    })).unproven("the victims' names are short; PostgreSQL cuts names at 63 bytes, and then asks for a password"),
    Attack::new("user_with_zero", Impersonate, ALL, Act::Login(|s| {
        let user = &s.stage.attacker.parameters[0].1;
        let victim = &s.stage.victim.parameters[0].1;
        let mut bytes = user.clone().into_bytes();
        bytes.extend(b"\0user\0");
        bytes.extend(victim.as_bytes());
        vec![(b"user".to_vec(), bytes)]
    })),
    Attack::new("user_with_others_inside", Impersonate, ALL, Act::Own(|scene| {
        let own = scene.stage.attacker.parameters[0].1.clone();
        let victim = scene.stage.victim.parameters[0].1.clone();
        let users = ["@", "/", ":", ".", "+", "\\", "%00", "%", "'", "\";", "*", "?", ","];
        let users: Vec<_> = users.iter().flat_map(|between| {
            [format!("{own}{between}{victim}"), format!("{victim}{between}{own}")]
        }).collect();
        tries(scene, &users)
    })).unproven("PostgreSQL compares names byte by byte"),
    Attack::new("user_not_utf8", Impersonate, ALL, Act::Login(|s| {
        let mut victim = s.stage.victim.parameters[0].1.clone().into_bytes();
        victim.push(0xff);
        let mut all: Parameters = own_and(s, &[]);
        all[0].1 = victim;
        all.push((b"database".to_vec(), b"\xff\xfe".to_vec()));
        all
    })).unproven("PostgreSQL compares names byte by byte"),
    Attack::new("no_user", Impersonate, ALL, Act::Login(|s| pairs(&[("database", &s.stage.value("db"))])))
        .unproven("PostgreSQL demands a user"),
    Attack::new("empty_user", Impersonate, ALL, Act::Login(|s| pairs(&[("user", ""), ("database", &s.stage.value("db"))])))
        .unproven("PostgreSQL demands a user"),
    Attack::new("physical_replication", Impersonate, ALL, Act::Own(|scene| replicates(scene, "true")))
    .unproven("the server's pg_hba.conf lets no physical replication in"),
    Attack::new("logical_replication", Impersonate, ALL, Act::Own(|scene| replicates(scene, "database"))),
    Attack::new("replication_in_options", Impersonate, ALL, Act::Login(|s| own_and(s, &[("_pq_.replication", "true"), ("replication", "off")])))
        .unproven("PostgreSQL knows no such extension"),
    Attack::new("splice_keys", Impersonate, ALL, Act::Own(|scene| {
        let (own, victim) = (scene.stage.attacker.password.clone(), scene.stage.victim.password.clone());
        let parts = |key: &str| key.rsplit_once('_').map(|(id, secret)| (id.to_owned(), secret.to_owned()));
        let (own_parts, victims) = (parts(&own)?, parts(&victim)?);
        let keys = [format!("{}_{}", victims.0, own_parts.1), format!("{own}\0{victim}"), victims.0, String::new()];
        for key in keys {
            let mut door = scene.stage.victim.clone();
            // Who guesses at keys is somewhere else.
            door.from = scene.stage.attacker.from;
            door.password = key;
            if door.password != victim && door.open().is_ok() {
                return Some("a key that is not the victim's opens its door".into());
            }
        }
        None
    })).unproven("PostgreSQL has no keys with parts"),
    Attack::new("cancel_by_own_key", Impersonate, ALL, Act::Own(|scene| {
        cancelled_by(scene, |scene| cancel(scene, &scene.attacker.cancel_key()))
    })),
    Attack::new("cancel_by_pid", Impersonate, ALL, Act::Own(|scene| {
        cancelled_by(scene, |scene| {
            let pid: i32 = scene.stage.value("pid").parse().unwrap_or(0);
            let told = scene.stage.sitter().cancel_key().0;
            let own = scene.attacker.cancel_key().1;
            for pid in [pid, told, pid + 1, 0, -1] {
                for secret in [own.clone(), vec![0; 4], vec![0xff; 4], vec![0; 32], vec![0; 256]] {
                    cancel(scene, &(pid, secret));
                }
            }
        })
    })),
    Attack::new("cancel_after_leaving", Impersonate, ALL, Act::Own(|scene| {
        let key = scene.attacker.cancel_key();
        scene.come_again();
        cancelled_by(scene, |scene| cancel(scene, &key))
    })),
    Attack::new("tenant_of_last_login", Impersonate, ROWS, Act::Script(&[
        A("set app.tenant_id = '{tenant}'"), A("set role {role}"), Again, A("select * from accounts"),
    ])).unproven("a new session of a naive application says who it is"),
];

/// Whether a replication connection is let in.
fn replicates(scene: &mut Scene<'_>, how: &str) -> Option<String> {
    let mut door = scene.stage.attacker.clone();
    door.turnstile = None;
    door.greeting.clear();
    let door = door.parameter("replication", how);
    let mut session = door.open().ok()?;
    let answer = session.query("IDENTIFY_SYSTEM");
    answer
        .is_ok()
        .then(|| "a replication connection is served".to_owned())
}

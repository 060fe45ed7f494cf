//! The other clients of a tenant: one looks for traces, one leaves traces, one takes servers away.

use super::{Client, Connect};

/// All that a session can find of another's: a line each, so that a difference names itself. That
/// the library of a language is loaded can be seen and is no state.
const FOOTPRINT: &str = "\
    select name || ' = ' || setting from pg_settings \
        where name not like 'plpgsql.%' or setting is distinct from boot_val \
    union all select name || ' = ' || coalesce(current_setting(name, true), '') \
        from unnest(array['app.x', 'app.y', 'app.long', 'role', 'session_authorization']) name \
    union all select 'current_user = ' || current_user \
    union all select 'temporary ' || relname from pg_class where relnamespace = pg_my_temp_schema() \
    union all select 'temporary ' || proname from pg_proc where pronamespace = pg_my_temp_schema() \
    union all select 'temporary ' || typname from pg_type where typnamespace = pg_my_temp_schema() \
    union all select 'cursor ' || name from pg_cursors where name <> '' \
    union all select 'prepared ' || name from pg_prepared_statements where from_sql \
    union all select 'listens to ' || channel from pg_listening_channels() channel \
    union all select 'locks ' || objid from pg_locks \
        where locktype = 'advisory' and pid = pg_backend_pid()";

/// What the visitor leaves behind, in turns.
const TRACES: [&str; 2] = [
    "set work_mem = '1111kB'; set search_path = pg_catalog; set app.x = 'the visitor''s'; \
     set timezone = 'Pacific/Chatham'; set datestyle = 'SQL, MDY'; set intervalstyle = 'sql_standard'; \
     set enable_seqscan = off; set statement_timeout = '1h'",
    "set work_mem = '2222kB'; set search_path = 'nowhere'; set app.y = 'the visitor''s'; \
     set timezone = 'Asia/Kathmandu'; set datestyle = 'Postgres, DMY'; set client_encoding = 'LATIN1'; \
     set default_transaction_isolation = 'repeatable read'; set bytea_output = 'escape'",
];

/// What this client finds.
pub fn footprint(client: &mut Client) -> Vec<String> {
    let mut lines = client.values(FOOTPRINT);
    lines.sort_unstable();
    lines
}

/// The client finds nothing but what a new session finds.
pub fn finds_nothing(client: &mut Client, clean: &[String]) {
    let found = footprint(client);
    let more: Vec<_> = found.iter().filter(|line| !clean.contains(line)).collect();
    let less: Vec<_> = clean.iter().filter(|line| !found.contains(line)).collect();
    assert!(
        more.is_empty() && less.is_empty(),
        "a client that did nothing finds {more:?} instead of {less:?}"
    );
}

/// Three clients of one tenant.
pub struct Company {
    witness: Client,
    visitor: Client,
    holder: Option<Client>,
    clean: Vec<String>,
    visits: usize,
}

impl Company {
    /// They log in. `clean` is the footprint of a session where nothing happened; `holds` says
    /// whether there are servers enough for one to be taken away.
    pub fn new(connect: &Connect, clean: &[String], holds: bool) -> Self {
        Self {
            witness: connect.login(),
            visitor: connect.login(),
            holder: holds.then(|| connect.login()),
            clean: clean.to_vec(),
            visits: 0,
        }
    }

    /// They use the servers that are free.
    pub fn visit(&mut self) {
        self.visits += 1;
        if let Some(holder) = &mut self.holder {
            match (self.visits % 3, holder.status) {
                (1, 'I') => drop(holder.exec("begin")),
                (0, 'T') => drop(holder.exec("rollback")),
                _ => {}
            }
        }
        finds_nothing(&mut self.witness, &self.clean);
        self.visitor.exec(TRACES[self.visits % 2]);
    }
}

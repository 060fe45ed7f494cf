//! What the victim has, in its place and in its session.

use crate::attack::Tier;

/// Said by the victim in a new place, where it may make things: each holds the canary in another
/// way. What the database does not let it do is left out.
const OWN: &[&str] = &[
    "create function whisper() returns text language sql as $$ select '{canary}'::text $$",
    "create function murmur(word text default '{canary}') returns text language sql return word || '{canary}'",
    "create procedure mutter() language plpgsql as $$ begin perform '{canary}'; end $$",
    "create view glance as select '{canary}'::text as seen",
    "create materialized view memory as select '{canary}'::text as seen",
    "create sequence ticket",
    "create sequence tally",
    "select nextval('tally')",
    "select setval('ticket', 4711)",
    "create table drafts (id int primary key, note text default '{canary}', check (note <> 'not {canary}'))",
    "insert into drafts values (1)",
    "comment on table drafts is '{canary}'",
    "create index drafts_note on drafts (id) where note = '{canary}'",
    "create function touch() returns trigger language plpgsql as $$ begin return new; end $$",
    "create trigger touched before insert on drafts for each row when (new.note = '{canary}') execute function touch()",
    "create rule ruled as on delete to drafts where old.note = 'of {canary}' do also select 1",
    "create policy guarded on drafts using (note <> 'of {canary}')",
    "create statistics counted on (note || '{canary}'), id from drafts",
    "create domain worded as text default '{canary}' check (value <> 'not {canary}')",
    "create table parts (part text) partition by list (part)",
    "create table part_one partition of parts for values in ('{canary}')",
    "create table measured as select n, case when n % 2 = 0 then '{canary}' else n::text end as word from generate_series(1, 300) n",
    "create publication printed for table drafts where (note <> '{canary}')",
    "analyze",
    "alter role current_user set app.secret = '{canary}'",
    "select lo_from_bytea({lo}, '{canary}')",
];

/// The same where tables are shared.
const COMMON: &[&str] = &["select lo_from_bytea({lo}, '{canary}')"];

/// What the victim says once, in a new place.
pub fn furniture(tier: Tier) -> &'static [&'static str] {
    if tier.is_row() { COMMON } else { OWN }
}

/// What the victim says at the start of the session that it has all the time.
pub const SITTING: &[&str] = &[
    "set app.secret = '{canary}'",
    "create temp table diary as select '{canary}'::text as line",
    "prepare recipe as select '{canary}'::text",
    "select pg_advisory_lock({lock})",
    "declare held cursor with hold for select '{canary}'::text as line",
];

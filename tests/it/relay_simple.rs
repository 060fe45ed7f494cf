//! The simple query protocol.

use crate::harness::{Client, Request, differential::same_everywhere, tags};

fn answers<'a>(sql: &'a [&'a str]) -> impl Fn(&mut Client) -> Vec<crate::harness::Frame> + 'a {
    move |client| sql.iter().flat_map(|sql| client.query(sql)).collect()
}

#[test]
fn values_come_as_postgresql_sends_them() {
    same_everywhere(answers(&[
        "select 1",
        "select 1 as a, 'text' as b, null as c, true, 1.5::numeric, now() is null",
        "select * from generate_series(1, 1000) g",
        "select repeat('x', 100000)",
        "select 'naïve ☃ 𝄞'",
        "select '{1,2,NULL}'::int[], '\\x00ff'::bytea, '{\"a\": 1}'::jsonb, row(1, 'a')",
        "select",
        "values (1, 'a'), (2, 'b')",
    ]));
}

#[test]
fn an_empty_query_is_answered_as_such() {
    same_everywhere(answers(&["", ";", "  -- nothing", "/* nothing */;;"]));
}

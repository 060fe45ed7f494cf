//! What the tables of several systems have in common, and how it becomes ours.

use super::{note::Notes, source::Columns};
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// Most servers that a pool can have.
const POOL_MAX: i64 = 10_000;

/// Sizes of a pool in our bounds.
pub(super) fn pool(
    max: Option<i64>,
    min: Option<i64>,
    subject: &str,
    notes: &mut Notes,
) -> (Option<i32>, Option<i32>) {
    let size = max.map(|max| max.clamp(1, POOL_MAX));
    if size != max {
        notes.say(
            subject,
            "its largest pool is out of bounds: 1 to 10000 are allowed, the nearest was written",
        );
    }
    // Without a size of its own it has 20.
    let least = min.map(|min| min.clamp(0, size.unwrap_or(20)));
    if least != min {
        notes.say(
            subject,
            "its smallest pool is larger than the largest, or less than 0: the nearest was written",
        );
    }
    let small = |size: Option<i64>| size.and_then(|size| i32::try_from(size).ok());
    (small(size), small(least))
}

/// A time zone that PostgreSQL knows; an unknown one would refuse every login.
pub(super) fn time_zone(
    row: &Columns,
    column: &str,
    known: &HashSet<String>,
    subject: &str,
    notes: &mut Notes,
) -> Option<String> {
    let zone = row.text(column)?;
    if known.contains(&zone) {
        return Some(zone);
    }
    let what = format!("{subject}: {column}");
    notes.say(
        &what,
        format!("not taken over: PostgreSQL knows no time zone {zone:?}"),
    );
    None
}

/// What else is known of the tenant, under the name of where it comes from.
pub(super) fn metadata(from: &str, row: &Columns, taken: &[&str]) -> Value {
    let rest = row.others(taken);
    let rest = rest.filter_map(|name| Some((name.clone(), row.value(name)?)));
    let rest: Map<String, Value> = rest.collect();
    if rest.is_empty() {
        json!({})
    } else {
        json!({ from: rest })
    }
}

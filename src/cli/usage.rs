//! `pgusher tenant usage`.

use super::{
    Io, control, table,
    tenant_args::{Part, UsageArgs},
};
use crate::control::{UsageBy, UsageView, Used};
use anyhow::bail;
use std::fmt::Write as _;
use time::OffsetDateTime;

const HEADINGS: [&str; 12] = [
    "start",
    "queries",
    "transactions",
    "replica_transactions",
    "rows",
    "client_bytes",
    "server_bytes",
    "server_time_us",
    "wait_time_us",
    "connections_peak",
    "storage_bytes",
    "errors",
];

pub(super) fn run(args: &UsageArgs, io: &mut Io<'_>) -> anyhow::Result<()> {
    let now = OffsetDateTime::now_utc();
    let by = match args.by {
        Part::Day => UsageBy::Day,
        Part::Hour => UsageBy::Hour,
    };
    let from = args.from.unwrap_or_else(|| by.since(now));
    let to = args.to.unwrap_or(now);
    if from >= to {
        bail!("--from must be before --to");
    }
    let (id, is_to_be_measured) = (args.id.clone(), args.measure);
    let usage = control::run(&args.common.config, |control, actor| async move {
        if is_to_be_measured {
            control.measure_storage(&actor, &id).await?;
        }
        Ok(control.usage(&actor, &id, (from, to), by).await?)
    })?;
    if args.common.json {
        return table::json(io, &usage);
    }
    if args.csv {
        write!(io.output, "{}", csv(&usage))?;
        return Ok(());
    }
    let mut table = table::table(&[
        "from", "queries", "txns", "replica", "rows", "in", "out", "servers", "waited", "peak",
        "storage", "errors",
    ]);
    let width = match by {
        UsageBy::Day => 10,
        UsageBy::Hour => 16,
    };
    for part in &usage.parts {
        let mut start = table::time(part.start);
        start.truncate(width);
        table.add_row(shown(start, &part.used));
    }
    table.add_row(shown("total".to_owned(), &usage.total));
    table::print(io, &table)
}

fn csv(usage: &UsageView) -> String {
    let mut text = HEADINGS.join(",");
    text.push('\n');
    for part in &usage.parts {
        let mut fields = vec![table::time(part.start)];
        let used = &part.used;
        let numbers = [
            used.queries,
            used.transactions,
            used.replica_transactions,
            used.rows,
            used.client_bytes,
            used.server_bytes,
            used.server_time_us,
            used.wait_time_us,
            used.connections_peak,
        ];
        fields.extend(numbers.map(|number| number.to_string()));
        let storage = used.storage_bytes;
        fields.push(storage.map(|bytes| bytes.to_string()).unwrap_or_default());
        fields.push(errors(used));
        text.push_str(&fields.join(","));
        text.push('\n');
    }
    text
}

/// A row for people.
fn shown(start: String, used: &Used) -> [String; 12] {
    [
        start,
        used.queries.to_string(),
        used.transactions.to_string(),
        used.replica_transactions.to_string(),
        used.rows.to_string(),
        bytes(used.client_bytes),
        bytes(used.server_bytes),
        seconds(used.server_time_us),
        seconds(used.wait_time_us),
        used.connections_peak.to_string(),
        used.storage_bytes.map(bytes).unwrap_or_default(),
        errors(used),
    ]
}

/// `42P01:3 57014:1`
fn errors(used: &Used) -> String {
    let mut text = String::new();
    for (code, count) in &used.errors {
        let space = if text.is_empty() { "" } else { " " };
        write!(text, "{space}{code}:{count}").unwrap_or_default();
    }
    text
}

fn bytes(count: i64) -> String {
    let count = u64::try_from(count).unwrap_or(0);
    indicatif::HumanBytes(count).to_string()
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn seconds(micros: i64) -> String {
    format!("{:.3} s", micros as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::UsedIn;

    #[test]
    fn csv_has_a_field_for_each_heading() {
        let start = OffsetDateTime::UNIX_EPOCH;
        let errors = [("42P01".to_owned(), 3), ("57014".to_owned(), 1)];
        let used = Used {
            queries: 7,
            errors: errors.into(),
            ..Used::default()
        };
        let usage = UsageView {
            tenant: "acme".to_owned(),
            from: start,
            to: start,
            by: UsageBy::Hour,
            total: used.clone(),
            parts: vec![UsedIn { start, used }],
        };
        let text = csv(&usage);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].split(',').count(), lines[1].split(',').count());
        assert_eq!(
            lines[1],
            "1970-01-01T00:00:00Z,7,0,0,0,0,0,0,0,0,,42P01:3 57014:1"
        );
    }
}

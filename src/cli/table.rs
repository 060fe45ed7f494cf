//! Tables for people, as wide as they need to be; JSON for programs.

use super::Io;
use comfy_table::{ContentArrangement, LineStyle, Table, presets};
use serde::Serialize;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A table with these headings.
pub(super) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().copied());
    table
}

/// Prints a table.
pub(super) fn print(io: &mut Io<'_>, table: &Table) -> anyhow::Result<()> {
    writeln!(io.output, "{}", table.trim_fmt())?;
    Ok(())
}

/// Prints JSON.
pub(super) fn json(io: &mut Io<'_>, value: &impl Serialize) -> anyhow::Result<()> {
    writeln!(io.output, "{}", serde_json::to_string_pretty(value)?)?;
    Ok(())
}

/// Prints a record, a line a field; fields that are empty are left out.
pub(super) fn record(io: &mut Io<'_>, value: &impl Serialize) -> anyhow::Result<()> {
    let mut table = table(&["field", "value"]);
    if let Value::Object(fields) = serde_json::to_value(value)? {
        for (field, value) in fields {
            let text = text(&value);
            if !text.is_empty() {
                table.add_row([field, text]);
            }
        }
    }
    print(io, &table)
}

/// A value without quotes; nothing for what is empty.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => String::new(),
        Value::Object(fields) if fields.is_empty() => String::new(),
        other => other.to_string(),
    }
}

/// A time to the second.
pub(super) fn time(time: OffsetDateTime) -> String {
    let whole = time.replace_nanosecond(0).unwrap_or(time);
    whole.format(&Rfc3339).unwrap_or_default()
}

/// A time that may not be.
pub(super) fn maybe_time(at: Option<OffsetDateTime>) -> String {
    at.map(time).unwrap_or_default()
}

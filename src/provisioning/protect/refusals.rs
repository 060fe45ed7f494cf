//! What can't be protected, and why.

use super::table::{Index, Reference, Table};

/// Everything that stands in the way, in words.
pub(super) fn of(table: &Table, tables: &[Table], has_assignment: bool) -> Vec<String> {
    let mut problems = form(table);
    problems.extend(tenants(table, has_assignment));
    problems.extend(keys(table));
    problems.extend(code(table));
    problems.extend(table.references.iter().filter_map(|r| reference(r, tables)));
    for referrer in &table.referrers {
        if !tables.iter().any(|table| table.oid == referrer.oid) {
            problems.push(format!(
                "{} refers to it ({}): protect both in one command",
                referrer.name, referrer.constraint
            ));
        }
    }
    problems
}

fn form(table: &Table) -> Vec<String> {
    let mut problems = Vec::new();
    let is = |text: &str| text.to_owned();
    match table.kind.as_str() {
        "r" if table.is_temporary => problems.push(is("it is temporary")),
        "r" => {}
        "p" => problems.push(is("it is partitioned; protect plain tables only")),
        _ => problems.push(is("it is no table")),
    }
    if table.is_partition || table.inherits {
        problems.push(is(
            "it is a partition, or inherits, or is inherited: rows could be reached past its policy",
        ));
    }
    if table.name.len() > 59 {
        problems.push(is("its name is longer than 59 bytes"));
    }
    if table.schema != "data" && table.view.is_some() {
        problems.push(format!("app.{} is there already", table.name));
    }
    if let Some(view) = &table.view
        && (view.kind != "v" || view.owner != "pgusher_view")
    {
        problems.push(format!("app.{} is not a view of ours", table.name));
    }
    problems
}

fn tenants(table: &Table, has_assignment: bool) -> Option<String> {
    match table.column("tenant_id") {
        Some(column) if column.kind != "text" => Some(format!(
            "its column tenant_id is of type {}: make it text, with the tenants' tokens in it",
            column.kind
        )),
        Some(_) if table.has_unknown_rows => Some(
            "it has rows whose tenant_id is no tenant's token (20 of a-z and 2-7): write them there first"
                .to_owned(),
        ),
        None if table.has_unknown_rows && !has_assignment => {
            Some("it has rows: say whose they are with --assign TENANT".to_owned())
        }
        _ => None,
    }
}

fn keys(table: &Table) -> Vec<String> {
    let mut problems = Vec::new();
    if table.identity().is_none() {
        problems.push(
            "it has no primary key (nor a unique key of columns that are never NULL)".to_owned(),
        );
    }
    for key in table.keys.iter().filter(|key| key.is_temporal) {
        problems.push(format!("{} is WITHOUT OVERLAPS", key.name));
    }
    for name in &table.exclusions {
        problems.push(format!(
            "exclusion constraint {name}: it would show other tenants' values; drop it"
        ));
    }
    let stuck = |index: &&Index| !index.leads && !index.can_lead && index.method != "hash";
    for index in table.indexes.iter().filter(stuck) {
        problems.push(format!(
            "index {} ({}) can't lead with tenant_id: drop it, or install the extension that lets it (btree_{})",
            index.name, index.method, index.method
        ));
    }
    problems
}

fn code(table: &Table) -> Vec<String> {
    let mut problems = Vec::new();
    for trigger in table.triggers.iter().filter(|t| !t.is_ours) {
        if trigger.is_definer {
            problems.push(format!(
                "trigger {} runs with the rights of its function's owner: drop it, or make the function SECURITY INVOKER",
                trigger.name
            ));
        } else if trigger.name == "refuse_read_only" {
            problems.push("trigger refuse_read_only is not ours, or is disabled".to_owned());
        }
    }
    for rule in &table.rules {
        problems.push(format!("rule {rule}: drop it"));
    }
    for policy in table.policies.iter().filter(|p| !p.is_ours) {
        problems.push(format!(
            "policy {}: policies add up, so rows would show; drop it",
            policy.name
        ));
    }
    for view in &table.dependents {
        problems.push(format!(
            "view {view} reads it, with its owner's rights: drop it"
        ));
    }
    problems
}

fn reference(reference: &Reference, tables: &[Table]) -> Option<String> {
    let name = &reference.name;
    if !tables.iter().any(|table| table.oid == reference.target)
        && reference
            .columns
            .first()
            .is_none_or(|first| first != "tenant_id")
    {
        return Some(format!(
            "foreign key {name} refers to {}.{}: protect both in one command",
            reference.target_schema, reference.target_name
        ));
    }
    let leads = |columns: &[String]| columns.first().is_some_and(|first| first == "tenant_id");
    if leads(&reference.columns) && leads(&reference.target_columns) {
        return None;
    }
    if matches!(reference.on_update.as_str(), "n" | "d") {
        return Some(format!(
            "foreign key {name}: ON UPDATE SET NULL or SET DEFAULT would change tenant_id"
        ));
    }
    (reference.is_full && reference.columns.len() > 1)
        .then(|| format!("foreign key {name} is MATCH FULL"))
}

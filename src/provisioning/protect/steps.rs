//! The statements that protect tables, as far as they are not protected yet.

use super::{
    Step, definitions,
    table::{Column, Key, Reference, Table},
};
use crate::sql::{quoted_literal, quoted_name};

const COUNTER: &str = include_str!("../sql/protect_counter.sql");
const POLICY: &str =
    "USING (tenant_id = (SELECT ctl.tenant())) WITH CHECK (tenant_id = (SELECT ctl.tenant()))";
const IS_READ_ONLY: &str =
    "session_user OPERATOR(pg_catalog.^@) 'r_' OR session_user OPERATOR(pg_catalog.^@) 'q_'";

/// The columns in an order, quoted.
fn list(columns: &[String]) -> String {
    let names: Vec<String> = columns.iter().map(|name| quoted_name(name)).collect();
    names.join(", ")
}

/// The columns with `tenant_id` as the first of them.
fn led(columns: &[String]) -> Vec<String> {
    let others = columns.iter().filter(|name| *name != "tenant_id").cloned();
    std::iter::once("tenant_id".to_owned())
        .chain(others)
        .collect()
}

fn leads(columns: &[String]) -> bool {
    columns.first().is_some_and(|first| first == "tenant_id")
}

/// What is to be done to the tables, which may refer to each other.
pub(super) fn of(tables: &[Table], has_counter: bool, assign: Option<&str>) -> Vec<Step> {
    let mut steps = Vec::new();
    let each = |steps: &mut Vec<Step>, make: &dyn Fn(&Table) -> Vec<Step>| {
        for table in tables {
            steps.extend(make(table));
        }
    };
    each(&mut steps, &place);
    each(&mut steps, &drop_references);
    each(&mut steps, &|table| tenant_column(table, assign));
    // Before the indexes: a new type makes them anew, and what is said of them is lost.
    each(&mut steps, &statistics);
    each(&mut steps, &keys);
    each(&mut steps, &indexes);
    each(&mut steps, &|table| add_references(table));
    if !has_counter && tables.iter().any(|t| t.columns.iter().any(is_sequence)) {
        steps.push(Step::new("make the tenants' counters", COUNTER));
    }
    each(&mut steps, &counters);
    each(&mut steps, &grants);
    each(&mut steps, &policy);
    each(&mut steps, &view);
    steps
}

fn at(table: &Table) -> String {
    format!("data.{}", quoted_name(&table.name))
}

fn shown(table: &Table) -> String {
    format!("app.{}", quoted_name(&table.name))
}

/// Into the schema `data`, with its owner. A view that is another now goes first.
fn place(table: &Table) -> Vec<Step> {
    let mut steps = Vec::new();
    let name = &table.name;
    if table.view.is_some() && !keeps_view(table) {
        steps.push(Step::new(
            format!("take view app.{name} away: it is made anew below"),
            format!("DROP VIEW {}", shown(table)),
        ));
    }
    if table.schema != "data" {
        steps.push(Step::new(
            format!("move {} into schema data", table.title()),
            format!(
                "ALTER TABLE {}.{} SET SCHEMA data",
                quoted_name(&table.schema),
                quoted_name(name)
            ),
        ));
    }
    if table.owner != "pgusher_data" {
        steps.push(Step::new(
            format!("give {name} to pgusher_data"),
            format!("ALTER TABLE {} OWNER TO pgusher_data", at(table)),
        ));
    }
    steps
}

/// Whether statistics were gathered that have to go.
fn must_forget(table: &Table) -> bool {
    table.is_analyzed && table.columns.iter().any(|column| column.statistics != 0)
}

/// Whether the view is as it should be, and in nobody's way.
fn keeps_view(table: &Table) -> bool {
    definitions::has_view(table) && !must_forget(table)
}

fn is_loose(reference: &Reference) -> bool {
    !leads(&reference.columns) || !leads(&reference.target_columns)
}

fn drop_references(table: &Table) -> Vec<Step> {
    let loose = table.references.iter().filter(|r| is_loose(r));
    let drop = |reference: &Reference| {
        Step::new(
            format!("drop foreign key {} of {}", reference.name, table.name),
            format!(
                "ALTER TABLE {} DROP CONSTRAINT {}",
                at(table),
                quoted_name(&reference.name)
            ),
        )
    };
    loose.map(drop).collect()
}

fn tenant_column(table: &Table, assign: Option<&str>) -> Vec<Step> {
    let (name, at) = (&table.name, at(table));
    let mut steps = Vec::new();
    let column = table.column("tenant_id");
    if column.is_none() {
        let sql = match assign.filter(|_| table.has_unknown_rows) {
            Some(token) => format!(
                "ALTER TABLE {at} ADD COLUMN tenant_id text NOT NULL DEFAULT {}",
                quoted_literal(token)
            ),
            None => format!("ALTER TABLE {at} ADD COLUMN tenant_id text NOT NULL"),
        };
        let what = match assign.filter(|_| table.has_unknown_rows) {
            Some(token) => {
                format!("add tenant_id to {name}; the rows that are there become {token}'s")
            }
            None => format!("add tenant_id to {name}"),
        };
        steps.push(Step::new(what, sql));
    } else if column.is_some_and(|column| !column.is_not_null) {
        steps.push(Step::new(
            format!("refuse rows of nobody in {name}"),
            format!("ALTER TABLE {at} ALTER tenant_id SET NOT NULL"),
        ));
    }
    if column.and_then(|column| column.default.as_deref()) != Some("ctl.tenant()") {
        steps.push(Step::new(
            format!("let new rows of {name} be their writer's"),
            format!("ALTER TABLE {at} ALTER tenant_id SET DEFAULT ctl.tenant()"),
        ));
    }
    steps
}

fn keys(table: &Table) -> Vec<Step> {
    let loose = table.keys.iter().filter(|key| !leads(&key.columns));
    let rebuild = |key: &Key| {
        let kind = match (key.is_primary, key.nulls_not_distinct) {
            (true, _) => "PRIMARY KEY",
            (false, true) => "UNIQUE NULLS NOT DISTINCT",
            (false, false) => "UNIQUE",
        };
        let included = if key.included.is_empty() {
            String::new()
        } else {
            format!(" INCLUDE ({})", list(&key.included))
        };
        let name = quoted_name(&key.name);
        Step::new(
            format!("lead {} of {} with tenant_id", key.name, table.name),
            format!(
                "ALTER TABLE {} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} {kind} ({}){included}{}",
                at(table),
                list(&led(&key.columns)),
                deferral(key.is_deferrable, key.is_deferred)
            ),
        )
    };
    loose.map(rebuild).collect()
}

fn deferral(is_deferrable: bool, is_deferred: bool) -> &'static str {
    match (is_deferrable, is_deferred) {
        (true, true) => " DEFERRABLE INITIALLY DEFERRED",
        (true, false) => " DEFERRABLE",
        _ => "",
    }
}

fn indexes(table: &Table) -> Vec<Step> {
    let mut steps = Vec::new();
    for index in table.indexes.iter().filter(|index| !index.leads) {
        // Read before the table was moved.
        let moved = |text: &str| {
            let from = format!(" ON {}.", quoted_name_as_shown(&table.schema));
            text.replacen(&from, " ON data.", 1)
        };
        let rest = index.definition.strip_prefix(&index.prefix);
        let Some(rest) = rest else {
            continue;
        };
        let prefix = moved(&index.prefix).replacen(" USING hash (", " USING btree (", 1);
        let bare = index
            .name
            .split_once('.')
            .map_or(&*index.name, |(_, bare)| bare);
        steps.push(Step::new(
            format!("lead index {bare} of {} with tenant_id", table.name),
            format!("DROP INDEX data.{bare}; {prefix}tenant_id, {rest}"),
        ));
        for place in &index.expressions {
            steps.push(observe_nothing(table, bare, place + 1));
        }
    }
    for index in table.indexes.iter().filter(|index| index.leads) {
        let bare = index
            .name
            .split_once('.')
            .map_or(&*index.name, |(_, bare)| bare);
        for place in &index.observed {
            steps.push(observe_nothing(table, bare, *place));
        }
    }
    steps
}

/// As `format('%I')` shows it: without quotes where it needs none.
fn quoted_name_as_shown(name: &str) -> String {
    let is_plain = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if is_plain {
        name.to_owned()
    } else {
        quoted_name(name)
    }
}

fn observe_nothing(table: &Table, index: &str, place: i32) -> Step {
    Step::new(
        format!(
            "gather no statistics on an expression of index {index} of {}",
            table.name
        ),
        format!("ALTER INDEX data.{index} ALTER COLUMN {place} SET STATISTICS 0"),
    )
}

fn add_references(table: &Table) -> Vec<Step> {
    let loose = table.references.iter().filter(|r| is_loose(r));
    let add = |reference: &Reference| {
        let set = if reference.set_columns.is_empty() {
            &reference.columns
        } else {
            &reference.set_columns
        };
        let set: Vec<String> = set
            .iter()
            .filter(|name| *name != "tenant_id")
            .cloned()
            .collect();
        let on_delete = match reference.on_delete.as_str() {
            "r" => " ON DELETE RESTRICT".to_owned(),
            "c" => " ON DELETE CASCADE".to_owned(),
            "n" => format!(" ON DELETE SET NULL ({})", list(&set)),
            "d" => format!(" ON DELETE SET DEFAULT ({})", list(&set)),
            _ => String::new(),
        };
        let on_update = match reference.on_update.as_str() {
            "r" => " ON UPDATE RESTRICT",
            "c" => " ON UPDATE CASCADE",
            _ => "",
        };
        let is_valid = if reference.is_valid { "" } else { " NOT VALID" };
        Step::new(
            format!(
                "let foreign key {} of {} stay within a tenant",
                reference.name, table.name
            ),
            format!(
                "ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES data.{} ({}){on_update}{on_delete}{}{is_valid}",
                at(table),
                quoted_name(&reference.name),
                list(&led(&reference.columns)),
                quoted_name(&reference.target_name),
                list(&led(&reference.target_columns)),
                deferral(reference.is_deferrable, reference.is_deferred)
            ),
        )
    };
    loose.map(add).collect()
}

fn is_sequence(column: &Column) -> bool {
    let default = column.default.as_deref().unwrap_or("");
    column.is_identity || default.starts_with("nextval(")
}

fn counters(table: &Table) -> Vec<Step> {
    let mut steps = Vec::new();
    for column in table.columns.iter().filter(|column| is_sequence(column)) {
        let (at, name) = (at(table), quoted_name(&column.name));
        let counter = quoted_literal(&definitions::counter(&table.name, &column.name));
        let mut sql = Vec::new();
        if column.is_identity {
            sql.push(format!("ALTER TABLE {at} ALTER {name} DROP IDENTITY"));
        }
        sql.push(format!(
            "ALTER TABLE {at} ALTER {name} SET DEFAULT ctl.next_number({counter}), ALTER {name} SET NOT NULL"
        ));
        if let Some(sequence) = &column.sequence {
            // It went with the table.
            let bare = sequence
                .split_once('.')
                .map_or(&**sequence, |(_, bare)| bare);
            sql.push(format!("DROP SEQUENCE data.{bare}"));
        }
        sql.push(format!(
            "DO $count$ DECLARE it record; before text := current_setting('pgusher.tenant', true); BEGIN
                FOR it IN SELECT tenant_id, max({name}) AS last FROM {at} GROUP BY tenant_id LOOP
                    PERFORM set_config('pgusher.tenant', it.tenant_id, true);
                    INSERT INTO data.pgusher_counter AS c (tenant_id, name, value) VALUES (it.tenant_id, {counter}, it.last)
                    ON CONFLICT (tenant_id, name) DO UPDATE SET value = greatest(c.value, excluded.value);
                END LOOP;
                PERFORM set_config('pgusher.tenant', coalesce(before, ''), true);
            END $count$"
        ));
        steps.push(Step::new(
            format!(
                "number {}.{} by tenant, in place of a sequence: it would show how much others write",
                table.name, column.name
            ),
            sql.join("; "),
        ));
    }
    steps
}

fn statistics(table: &Table) -> Vec<Step> {
    let at = at(table);
    let mut steps: Vec<Step> = table
        .statistics
        .iter()
        .map(|name| {
            let bare = name.split_once('.').map_or(&**name, |(_, bare)| bare);
            Step::new(
                format!("drop statistics {bare} on {}", table.name),
                // They stay in the schema where they are.
                format!("DROP STATISTICS {name}"),
            )
        })
        .collect();
    let observed: Vec<&Column> = table.columns.iter().filter(|c| c.statistics != 0).collect();
    let is_new = table.column("tenant_id").is_none();
    if observed.is_empty() && !is_new {
        return steps;
    }
    let names = observed.iter().map(|column| quoted_name(&column.name));
    let names: Vec<String> = names
        .chain(is_new.then(|| "tenant_id".to_owned()))
        .collect();
    let mut changes = Vec::new();
    // Setting the same type drops what was gathered before.
    if must_forget(table) {
        let plain = observed.iter().filter(|column| !column.is_generated);
        changes.extend(plain.map(|c| format!("ALTER {} TYPE {}", quoted_name(&c.name), c.kind)));
    }
    let forget = changes.join(", ");
    let targets: Vec<String> = names
        .iter()
        .map(|name| format!("ALTER {name} SET STATISTICS 0"))
        .collect();
    let mut sql = format!("ALTER TABLE {at} {}", targets.join(", "));
    if !forget.is_empty() {
        sql = format!("ALTER TABLE {at} {forget}; {sql}");
    }
    steps.push(Step::new(
        format!(
            "gather no statistics on {}: they would hold every tenant's values",
            table.name
        ),
        sql,
    ));
    steps
}

fn grants(table: &Table) -> Vec<Step> {
    let (name, at) = (&table.name, at(table));
    let mut steps: Vec<Step> = table
        .grantees
        .iter()
        .filter(|grantee| *grantee != "pgusher_data")
        .map(|grantee| {
            Step::new(
                format!("take what {grantee} may do to {name}"),
                format!("REVOKE ALL ON {at} FROM {grantee}"),
            )
        })
        .collect();
    let is_granted = table.columns.iter().all(|column| column.is_granted)
        && table.can_delete
        && table.grantees.is_empty()
        && table.column("tenant_id").is_some();
    if !is_granted {
        let mut columns: Vec<String> = table.columns.iter().map(|c| c.name.clone()).collect();
        if table.column("tenant_id").is_none() {
            columns.push("tenant_id".to_owned());
        }
        let columns = list(&columns);
        steps.push(Step::new(
            format!("let the view read and write {name}, by column: a right to the whole table would let a tenant lock it"),
            format!(
                "GRANT SELECT ({columns}), INSERT ({columns}), UPDATE ({columns}) ON {at} TO pgusher_view; \
                 GRANT SELECT ({columns}), DELETE ON {at} TO pgusher_del"
            ),
        ));
    }
    steps
}

fn policy(table: &Table) -> Vec<Step> {
    let (name, at) = (&table.name, at(table));
    let mut steps = Vec::new();
    if !table.has_rls || !table.is_forced {
        steps.push(Step::new(
            format!("let {name} show each tenant its own rows"),
            format!("ALTER TABLE {at} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"),
        ));
    }
    let has = |policy: &str| table.policies.iter().any(|known| known.name == policy);
    if !has("tenant") {
        steps.push(Step::new(
            format!("say whose rows of {name} are whose"),
            format!("CREATE POLICY tenant ON {at} TO PUBLIC {POLICY}"),
        ));
    }
    if !has("read_only") {
        // SELECT … FOR UPDATE and its like ask policies for UPDATE, and fire no trigger.
        steps.push(Step::new(
            format!("let no read-only login lock rows of {name}"),
            format!(
                "CREATE POLICY read_only ON {at} AS RESTRICTIVE FOR UPDATE TO PUBLIC USING ((SELECT ctl.may_write()))"
            ),
        ));
    }
    if !table.triggers.iter().any(|trigger| trigger.is_ours) {
        steps.push(Step::new(
            format!("refuse writes of read-only logins to {name}"),
            format!(
                "CREATE TRIGGER refuse_read_only BEFORE INSERT OR UPDATE OR DELETE ON {at} FOR EACH STATEMENT
                 WHEN ({IS_READ_ONLY}) EXECUTE FUNCTION ctl.refuse_read_only()"
            ),
        ));
    }
    steps
}

fn view(table: &Table) -> Vec<Step> {
    let mut steps = Vec::new();
    let (name, at, shown) = (&table.name, at(table), shown(table));
    let function = definitions::delete_name(name);
    let body = definitions::delete_body(table);
    let has_function = table.functions.get(&function) == Some(&body);
    if !has_function {
        let function = format!("ctl.{}", quoted_name(&function));
        steps.push(Step::new(
            format!("make the function that deletes rows of {name}"),
            format!(
                "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER \
                 SET search_path = pg_catalog, pg_temp AS {}; \
                 ALTER FUNCTION {function}() OWNER TO pgusher_del; \
                 REVOKE ALL ON FUNCTION {function}() FROM PUBLIC; \
                 GRANT EXECUTE ON FUNCTION {function}() TO CURRENT_USER",
                quoted_literal(&body)
            ),
        ));
    }
    if keeps_view(table) {
        return steps;
    }
    let columns = definitions::view_columns(table);
    let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
    let mut sql = vec![format!(
        "CREATE VIEW {shown} WITH (security_barrier) AS SELECT {} FROM {at}",
        list(&names)
    )];
    for (column, default) in &columns {
        if let Some(default) = default {
            let column = quoted_name(column);
            sql.push(format!(
                "ALTER VIEW {shown} ALTER {column} SET DEFAULT {default}"
            ));
        }
    }
    sql.push(format!(
        "CREATE TRIGGER del INSTEAD OF DELETE ON {shown} FOR EACH ROW EXECUTE FUNCTION ctl.{}(); \
         CREATE TRIGGER refuse_read_only BEFORE DELETE ON {shown} FOR EACH STATEMENT
         WHEN ({IS_READ_ONLY}) EXECUTE FUNCTION ctl.refuse_read_only(); \
         ALTER VIEW {shown} OWNER TO pgusher_view; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON {shown} TO PUBLIC",
        quoted_name(&function)
    ));
    steps.push(Step::new(
        format!("show {name} to the tenants as view app.{name}"),
        sql.join("; "),
    ));
    steps
}

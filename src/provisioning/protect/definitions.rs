//! What a table's view and functions should be.

use super::table::Table;
use crate::sql::quoted_name;

/// The name of a column's counter.
pub(super) fn counter(table: &str, column: &str) -> String {
    format!("{table}.{column}")
}

/// The name of the function that deletes; the table's is at most 59 bytes long.
pub(super) fn delete_name(table: &str) -> String {
    format!("del_{table}")
}

/// Its body.
pub(super) fn delete_body(table: &Table) -> String {
    let key = table.identity().map(|key| key.columns.as_slice());
    let mut found = "tenant_id = OLD.tenant_id".to_owned();
    for column in key.unwrap_or_default() {
        if column != "tenant_id" {
            let column = quoted_name(column);
            found += &format!(" AND {column} = OLD.{column}");
        }
    }
    format!(
        "BEGIN DELETE FROM data.{} WHERE {found}; IF NOT FOUND THEN RETURN NULL; END IF; RETURN OLD; END",
        quoted_name(&table.name)
    )
}

/// The view's columns and their defaults: as the table's, with `tenant_id` as the last, so that who
/// inserts without names never meets it.
pub(super) fn view_columns(table: &Table) -> Vec<(String, Option<String>)> {
    let others = table.columns.iter().filter(|c| c.name != "tenant_id");
    let default = |column: &super::table::Column| {
        let is_number = column.is_identity
            || column
                .default
                .as_deref()
                .is_some_and(|text| text.starts_with("nextval("));
        if is_number {
            let counter = crate::sql::quoted_literal(&counter(&table.name, &column.name));
            return Some(format!("ctl.next_number({counter})"));
        }
        column.default.clone()
    };
    let tenant = ("tenant_id".to_owned(), Some("ctl.tenant()".to_owned()));
    others
        .map(|column| (column.name.clone(), default(column)))
        .chain(std::iter::once(tenant))
        .collect()
}

/// Whether the view is there as it should be.
pub(super) fn has_view(table: &Table) -> bool {
    let Some(view) = &table.view else {
        return false;
    };
    let kind = |name: &str| {
        let column = table.column(name);
        column.map_or_else(|| "text".to_owned(), |column| column.kind.clone())
    };
    let expected = view_columns(table);
    let is_same =
        view.columns.len() == expected.len()
            && view.columns.iter().zip(&expected).all(
                |((name, shown, default), (wanted, value))| {
                    name == wanted && *shown == kind(wanted) && default == value
                },
            );
    let function = delete_name(&table.name);
    is_same
        && view.is_barrier
        && view.is_granted
        && view.owner == "pgusher_view"
        && view.triggers
            == [
                format!("del {function}"),
                "refuse_read_only refuse_read_only".to_owned(),
            ]
}

//! A table as it is in the catalogue. What the fields are, `sql/protect_look.sql` tells.

use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Table {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) oid: i64,
    pub(super) kind: String,
    pub(super) is_temporary: bool,
    pub(super) is_partition: bool,
    pub(super) inherits: bool,
    pub(super) owner: String,
    pub(super) has_rls: bool,
    pub(super) is_forced: bool,
    pub(super) is_analyzed: bool,
    pub(super) columns: Vec<Column>,
    pub(super) keys: Vec<Key>,
    pub(super) exclusions: Vec<String>,
    pub(super) indexes: Vec<Index>,
    pub(super) references: Vec<Reference>,
    pub(super) referrers: Vec<Referrer>,
    pub(super) triggers: Vec<Trigger>,
    pub(super) rules: Vec<String>,
    pub(super) policies: Vec<Policy>,
    pub(super) statistics: Vec<String>,
    pub(super) grantees: Vec<String>,
    pub(super) can_delete: bool,
    pub(super) dependents: Vec<String>,
    pub(super) view: Option<View>,
    /// The functions of `ctl` that delete, and their bodies.
    pub(super) functions: BTreeMap<String, String>,
    /// Whether it has rows whose tenant is not known.
    #[serde(skip)]
    pub(super) has_unknown_rows: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Column {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) is_not_null: bool,
    pub(super) default: Option<String>,
    pub(super) is_generated: bool,
    pub(super) is_identity: bool,
    pub(super) statistics: i32,
    pub(super) sequence: Option<String>,
    pub(super) is_granted: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) is_primary: bool,
    pub(super) is_temporal: bool,
    pub(super) columns: Vec<String>,
    pub(super) included: Vec<String>,
    pub(super) nulls_not_distinct: bool,
    pub(super) is_deferrable: bool,
    pub(super) is_deferred: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Index {
    /// With its schema, quoted.
    pub(super) name: String,
    pub(super) definition: String,
    /// What the definition begins with, up to its first column.
    pub(super) prefix: String,
    pub(super) method: String,
    pub(super) leads: bool,
    pub(super) can_lead: bool,
    /// Places of expressions about which statistics are gathered.
    pub(super) observed: Vec<i32>,
    /// Places of all expressions.
    pub(super) expressions: Vec<i32>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Reference {
    pub(super) name: String,
    pub(super) target: i64,
    pub(super) target_schema: String,
    pub(super) target_name: String,
    pub(super) columns: Vec<String>,
    pub(super) target_columns: Vec<String>,
    pub(super) set_columns: Vec<String>,
    pub(super) on_update: String,
    pub(super) on_delete: String,
    pub(super) is_full: bool,
    pub(super) is_deferrable: bool,
    pub(super) is_deferred: bool,
    pub(super) is_valid: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Referrer {
    pub(super) oid: i64,
    pub(super) name: String,
    pub(super) constraint: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Trigger {
    pub(super) name: String,
    pub(super) is_definer: bool,
    pub(super) is_ours: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) is_ours: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct View {
    pub(super) kind: String,
    pub(super) owner: String,
    pub(super) is_barrier: bool,
    /// Name, type, default.
    pub(super) columns: Vec<(String, String, Option<String>)>,
    pub(super) is_granted: bool,
    /// Name and function.
    pub(super) triggers: Vec<String>,
}

impl Table {
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// What a row is found by: the columns of the primary key, or of a unique key that is never NULL.
    pub(super) fn identity(&self) -> Option<&Key> {
        let is_whole = |key: &&Key| {
            key.columns
                .iter()
                .all(|name| self.column(name).is_some_and(|column| column.is_not_null))
        };
        let primary = self.keys.iter().find(|key| key.is_primary);
        primary.or_else(|| {
            self.keys
                .iter()
                .filter(is_whole)
                .find(|key| !key.is_temporal)
        })
    }

    /// `schema.name`, for messages.
    pub(super) fn title(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

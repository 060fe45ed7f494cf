//! Texts of prepared statements.

use super::{
    model::Model,
    statement::{Answer, Code},
};

/// The text of a prepared statement: it returns one text, which ends in its parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// A text that nobody else has.
    Marked(String),
    /// A text that everyone has.
    Common,
    /// A text that everyone has and that returns a setting.
    Setting(&'static str),
    /// A text that everyone has and that reads a temporary table.
    Temp(String),
    /// A text that everyone has and that the search path gives its meaning.
    Placed,
}

impl Text {
    /// The SQL, with its parameter.
    pub fn sql(&self) -> String {
        match self {
            Self::Marked(mark) => format!("select '{mark}:' || $1::text"),
            Self::Common => "select 'common:' || $1::text".to_owned(),
            Self::Setting(name) => {
                format!("select coalesce(current_setting('{name}', true), '') || ':' || $1::text")
            }
            Self::Temp(table) => {
                format!(
                    "select coalesce(string_agg(mark, ',' order by mark collate \"C\"), '') || ':' || $1::text from {table}"
                )
            }
            Self::Placed => "select place || ':' || $1::text from placed".to_owned(),
        }
    }

    /// What it returns.
    pub fn run(&self, model: &Model, param: &str) -> Result<Answer, Code> {
        let found = match self {
            Self::Marked(mark) => mark.clone(),
            Self::Common => "common".to_owned(),
            Self::Setting(name) => model.value(name),
            Self::Placed => model.placed().to_owned(),
            Self::Temp(table) => model.marks_of(table)?.join(","),
        };
        Ok(Answer::row(format!("{found}:{param}")))
    }

    /// Whether PostgreSQL finds all that it names.
    pub fn is_sound(&self, model: &Model) -> Result<(), Code> {
        self.run(model, "").map(|_| ())
    }
}

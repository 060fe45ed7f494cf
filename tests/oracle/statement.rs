//! A statement and what it does to a session.

use super::model::Model;

/// The SQLSTATE of a statement that fails.
pub type Code = &'static str;

/// What a statement that succeeds returns: rows of one column, and its command tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The rows; "?" stands for any.
    pub rows: Vec<String>,
    /// The command tag.
    pub tag: String,
}

impl Answer {
    /// No rows.
    pub fn tag(tag: &str) -> Self {
        Self {
            rows: Vec::new(),
            tag: tag.to_owned(),
        }
    }

    /// The rows of a SELECT.
    pub fn rows(rows: Vec<String>) -> Self {
        let tag = format!("SELECT {}", rows.len());
        Self { rows, tag }
    }

    /// One row of a SELECT.
    pub fn row(row: impl Into<String>) -> Self {
        Self::rows(vec![row.into()])
    }
}

type Effect = Box<dyn Fn(&mut Model) -> Result<Answer, Code>>;

/// A statement, its text parameters, and what PostgreSQL answers to it.
pub struct Statement {
    /// The text.
    pub sql: String,
    /// Values for `$1`, `$2`, …: a statement that has any goes by the extended protocol.
    pub params: Vec<String>,
    /// Whether it may be one of several in a Query.
    pub is_sociable: bool,
    effect: Effect,
}

impl Statement {
    /// A statement with this effect, which changes nothing when it fails.
    pub fn new(
        sql: impl Into<String>,
        effect: impl Fn(&mut Model) -> Result<Answer, Code> + 'static,
    ) -> Self {
        Self {
            sql: sql.into(),
            params: Vec::new(),
            is_sociable: true,
            effect: Box::new(effect),
        }
    }

    /// A statement that only says this.
    pub fn fails(sql: &str, code: Code) -> Self {
        Self::new(sql, move |_| Err(code))
    }

    /// With parameters.
    pub fn bound(mut self, params: &[&str]) -> Self {
        self.params = params.iter().map(|text| (*text).to_owned()).collect();
        self
    }

    /// With this command tag, whatever its effect says.
    pub fn tagged(self, tag: &'static str) -> Self {
        let effect = self.effect;
        Self {
            effect: Box::new(move |model| {
                let answer = effect(model)?;
                let tag = tag.to_owned();
                Ok(Answer { tag, ..answer })
            }),
            ..self
        }
    }

    /// Only in a Query of its own.
    pub fn alone(mut self) -> Self {
        self.is_sociable = false;
        self
    }

    /// Changes the model and returns the answer.
    pub fn take_effect(&self, model: &mut Model) -> Result<Answer, Code> {
        (self.effect)(model)
    }
}

/// A text as a literal, the same under any `standard_conforming_strings` unless it has backslashes.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

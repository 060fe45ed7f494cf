//! What came of all attacks, as a table.

use crate::{attack::Attack, scene::Verdict};
use std::{collections::BTreeMap, fmt::Write};

/// Attacks by name, and what came of them by column.
#[derive(Default)]
pub struct Table {
    rows: BTreeMap<(String, String), BTreeMap<String, char>>,
    columns: Vec<String>,
    leaks: BTreeMap<&'static str, Vec<String>>,
    residuals: BTreeMap<&'static str, String>,
}

impl Table {
    /// Notes what came of one.
    pub fn note(&mut self, attack: &Attack, variant: &str, column: &str, verdict: &Verdict) {
        if !self.columns.iter().any(|known| known == column) {
            self.columns.push(column.to_owned());
            self.columns.sort();
        }
        let row = (
            attack.class.to_string(),
            format!("{}{variant}", attack.name),
        );
        let sign = match (verdict, attack.residual) {
            (Verdict::Blocked, _) => 'b',
            (Verdict::Leaked(what), Some(limit)) => {
                self.residuals
                    .insert(attack.name, format!("{limit}: {what}"));
                'r'
            }
            (Verdict::Leaked(what), None) => {
                let leaks = self.leaks.entry(attack.name).or_default();
                leaks.push(format!("{column}{variant}: {what}"));
                'L'
            }
        };
        self.rows
            .entry(row)
            .or_default()
            .insert(column.to_owned(), sign);
    }

    /// Attacks that leaked, with where and what.
    pub fn leaks(&self) -> BTreeMap<&'static str, Vec<String>> {
        let mut leaks = self.leaks.clone();
        let residuals = self.residuals.iter();
        if self.is_naive() {
            leaks.extend(residuals.map(|(name, what)| (*name, vec![what.clone()])));
        }
        leaks
    }

    fn is_naive(&self) -> bool {
        self.columns
            .iter()
            .any(|column| column.contains("SharedRole"))
    }

    /// The table and the counts.
    pub fn print(&self, title: &str) -> String {
        let mut text = format!("\n{title}\n");
        for (number, column) in self.columns.iter().enumerate() {
            writeln!(text, "  {number:>2} {column}").ok();
        }
        for ((class, name), row) in &self.rows {
            write!(text, "{class:<12} {name:<40}").ok();
            for column in &self.columns {
                write!(text, " {}", row.get(column).unwrap_or(&'.')).ok();
            }
            text.push('\n');
        }
        for column in &self.columns {
            let signs = self.rows.values().filter_map(|row| row.get(column));
            let (mut run, mut blocked, mut leaked, mut residual) = (0, 0, 0, 0);
            for sign in signs {
                run += 1;
                match sign {
                    'b' => blocked += 1,
                    'L' => leaked += 1,
                    _ => residual += 1,
                }
            }
            writeln!(
                text,
                "{column}: {run} run, {blocked} blocked, {leaked} leaked, {residual} residual"
            )
            .ok();
        }
        for (name, what) in &self.residuals {
            writeln!(text, "residual {name}: {what}").ok();
        }
        text
    }
}

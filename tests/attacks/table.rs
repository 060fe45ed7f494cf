//! What came of all attacks, as a table.

use crate::{
    attack::{Attack, LIMITS},
    scene::{Stage, Verdict, Who},
};
use std::{collections::BTreeMap, fmt::Write, time::Duration};

/// Attacks by name, and what came of them by column.
#[derive(Default)]
pub struct Table {
    rows: BTreeMap<(String, String), BTreeMap<String, char>>,
    columns: Vec<String>,
    leaks: BTreeMap<&'static str, Vec<String>>,
    residuals: BTreeMap<&'static str, String>,
    took: BTreeMap<&'static str, Duration>,
}

impl Table {
    /// Notes what came of one. A stated limit is none where provisioning doesn't tell it.
    pub fn note(&mut self, attack: &Attack, variant: &str, stage: &Stage, verdict: &Verdict) {
        let column = &stage.column();
        if !self.columns.iter().any(|known| known == column) {
            self.columns.push(column.to_owned());
            self.columns.sort();
        }
        let row = (
            attack.class.to_string(),
            format!("{}{variant}", attack.name),
        );
        let limit = match stage.who {
            Who::Other => attack.residual,
            Who::OwnReader => attack.residual_of_reader.or(attack.residual),
        };
        let limit = limit.filter(|limit| is_told(limit, stage));
        let sign = match (verdict, limit) {
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

    /// Notes how long one took.
    pub fn took(&mut self, attack: &Attack, time: Duration) {
        *self.took.entry(attack.name).or_default() += time;
    }

    /// Attacks that leaked, with where and what.
    pub fn leaks(&self) -> &BTreeMap<&'static str, Vec<String>> {
        &self.leaks
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
        let mut took: Vec<_> = self.took.iter().collect();
        took.sort_by_key(|(_, time)| std::cmp::Reverse(**time));
        let longest = took.iter().take(12);
        let longest: Vec<_> = longest
            .map(|(name, time)| format!("{name} {} s", time.as_secs()))
            .collect();
        writeln!(text, "longest in all columns: {}", longest.join(", ")).ok();
        for (name, what) in &self.residuals {
            writeln!(text, "residual {name}: {what}").ok();
        }
        text
    }
}

/// Whether somebody who asks is told of this limit. Nothing is a limit of a naive set-up.
fn is_told(limit: &str, stage: &Stage) -> bool {
    !stage.is_naive
        && match limit.strip_prefix("hole ") {
            Some(hole) => stage.holes.iter().any(|told| told == hole),
            None => LIMITS.iter().any(|(name, _)| *name == limit),
        }
}

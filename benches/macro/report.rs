//! What was measured and what did not run: lines on the way, a table at the end, JSON on request.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::args::Case;
use crate::figure::{Figure, Sample, Verdict};
use crate::proxy::Kind;
use crate::stats::Spread;

/// The circumstances of a run.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    /// Name and value, in the order to show.
    pub(crate) lines: Vec<(String, String)>,
    /// The first is the reference.
    pub(crate) proxies: Vec<Kind>,
}

/// Collects as the cases go.
#[derive(Debug)]
pub(crate) struct Report {
    environment: Environment,
    figures: Vec<Figure>,
    failures: Vec<String>,
}

impl Report {
    pub(crate) fn new(environment: Environment) -> Self {
        Self {
            environment,
            figures: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Whether everything ran.
    pub(crate) fn is_complete(&self) -> bool {
        self.failures.is_empty() && !self.figures.is_empty()
    }

    pub(crate) fn print_environment(&self) {
        for (name, value) in &self.environment.lines {
            println!("{name:>13}: {value}");
        }
    }

    /// Takes what one proxy did in one round.
    pub(crate) fn add(&mut self, case: Case, kind: Kind, samples: Vec<Sample>) {
        print_samples(kind, &samples);
        for Sample { name, unit, value } in samples {
            if !self.figures.iter().any(|figure| figure.name == name) {
                let samples = BTreeMap::new();
                self.figures.push(Figure {
                    case,
                    name: name.clone(),
                    unit,
                    samples,
                });
            }
            let figure = self.figures.iter_mut().find(|figure| figure.name == name);
            let samples = &mut figure.expect("it was pushed if it wasn't there").samples;
            samples.entry(kind).or_default().push(value);
        }
    }

    /// Takes note of what did not run.
    pub(crate) fn fail(&mut self, what: &str, error: &anyhow::Error) {
        let failure = format!("{what}: {error:#}").trim_end().to_owned();
        println!("  DID NOT RUN: {failure}");
        self.failures.push(failure);
    }

    pub(crate) fn print_table(&self) {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        let mut header = vec!["figure".to_owned(), "unit".to_owned()];
        header.extend(
            self.environment
                .proxies
                .iter()
                .map(|kind| kind.name().to_owned()),
        );
        let names = self.compared().map(|kind| format!("{} ×", kind.name()));
        header.extend(names.chain(["budget".to_owned(), "met".to_owned()]));
        table.set_header(header);
        for figure in &self.figures {
            table.add_row(self.row(figure));
        }
        println!("\n{table}");
        println!("median (lowest–highest) of the rounds; × is the ratio within a round");
        println!("met: by the median; with ? not all rounds agree");
        for failure in &self.failures {
            println!("DID NOT RUN: {failure}");
        }
    }

    fn reference(&self) -> Option<Kind> {
        self.environment.proxies.first().copied()
    }

    /// All but the reference.
    fn compared(&self) -> impl Iterator<Item = Kind> + '_ {
        self.environment.proxies.iter().copied().skip(1)
    }

    fn row(&self, figure: &Figure) -> Vec<Cell> {
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let shown = |spread: Option<Spread>| right(spread.map_or_else(String::new, show));
        let mut row = vec![Cell::new(&figure.name), Cell::new(figure.unit)];
        row.extend(
            self.environment
                .proxies
                .iter()
                .map(|kind| shown(figure.spread(*kind))),
        );
        let ratios = self
            .compared()
            .map(|kind| figure.ratio(kind, self.reference()?));
        row.extend(ratios.map(shown));
        row.push(Cell::new(
            figure
                .budget()
                .map_or_else(String::new, |budget| budget.to_string()),
        ));
        let judgement = figure.judgement();
        row.push(Cell::new(
            match (judgement.verdict, judgement.is_unanimous) {
                (Verdict::Met, true) => "yes",
                (Verdict::Met, false) => "yes ?",
                (Verdict::Missed, true) => "NO",
                (Verdict::Missed, false) => "NO ?",
                (Verdict::Open, _) => "",
            },
        ));
        row
    }

    pub(crate) fn write_json(&self, file: &Path) -> Result<()> {
        let environment: serde_json::Map<String, Value> = self
            .environment
            .lines
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|figure| self.figure_json(figure))
            .collect();
        let all = json!({
            "environment": environment,
            "reference": self.reference(),
            "figures": figures,
            "did_not_run": self.failures,
        });
        let text = serde_json::to_string_pretty(&all)?;
        std::fs::write(file, text).with_context(|| format!("can't write {}", file.display()))
    }

    fn figure_json(&self, figure: &Figure) -> Value {
        let ratios: serde_json::Map<String, Value> = self
            .compared()
            .filter_map(|kind| Some((kind, figure.ratio(kind, self.reference()?)?)))
            .map(|(kind, ratio)| (kind.name().to_lowercase(), json!(ratio)))
            .collect();
        let spreads: serde_json::Map<String, Value> = (figure.samples.keys())
            .map(|kind| (kind.name().to_lowercase(), json!(figure.spread(*kind))))
            .collect();
        json!({
            "case": format!("{:?}", figure.case).to_lowercase(),
            "figure": figure.name,
            "unit": figure.unit,
            "samples": figure.samples,
            "spread": spreads,
            "ratio": ratios,
            "budget": figure.budget().map(|budget| budget.to_string()),
            "judgement": figure.judgement(),
        })
    }
}

/// One line for the samples of one label, which is what stands before the colon.
fn print_samples(kind: Kind, samples: &[Sample]) {
    let label = |sample: &Sample| sample.name.split(": ").next().map(str::to_owned);
    for group in samples.chunk_by(|one, other| label(one) == label(other)) {
        let parts: Vec<String> = group
            .iter()
            .map(|Sample { name, unit, value }| {
                let name = name
                    .split_once(": ")
                    .map_or(name.as_str(), |(_, figure)| figure);
                format!("{name} {} {unit}", digits(*value))
                    .trim_end()
                    .to_owned()
            })
            .collect();
        let label = group.first().and_then(label).unwrap_or_default();
        println!("  {:<10} {label}: {}", kind.name(), parts.join(", "));
    }
}

fn show(spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    if min < max {
        format!("{} ({}–{})", digits(median), digits(min), digits(max))
    } else {
        digits(median)
    }
}

/// Three significant digits.
fn digits(number: f64) -> String {
    match number.abs() {
        size if size >= 99.5 => format!("{number:.0}"),
        size if size >= 9.95 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

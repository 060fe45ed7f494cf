//! The table at the end.

use crate::stats::Spread;
use comfy_table::{Table, presets::ASCII_MARKDOWN};

/// All figures.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<[String; 4]>,
}

impl Report {
    /// One number.
    pub(crate) fn number(&mut self, name: &str, unit: &str, value: f64, budget: &str) {
        self.row(name, format!("{} {unit}", short(value)), "", budget);
    }

    /// The middle of several numbers, beside what the same costs without us.
    pub(crate) fn spread(
        &mut self,
        name: &str,
        unit: &str,
        values: &[f64],
        bare: Option<&[f64]>,
        budget: &str,
    ) {
        let Some(ours) = Spread::of(values) else {
            return;
        };
        let beside = bare.and_then(Spread::of).map_or_else(String::new, |bare| {
            format!(
                "{} {unit}: {} x",
                short(bare.median),
                short(ours.median / bare.median)
            )
        });
        let shown = format!(
            "{} ({}-{}) {unit}",
            short(ours.median),
            short(ours.min),
            short(ours.max)
        );
        self.row(name, shown, &beside, budget);
    }

    fn row(&mut self, name: &str, value: String, bare: &str, budget: &str) {
        println!("{name}: {value} {bare}");
        self.rows
            .push([name.into(), value, bare.into(), budget.into()]);
    }

    /// Prints them.
    pub(crate) fn print(&self) {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN);
        table.set_header(["figure", "pgusher", "bare PostgreSQL", "budget"]);
        table.add_rows(&self.rows);
        println!("\n{table}");
    }
}

fn short(value: f64) -> String {
    if value.abs() < 10.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}

/// The machine's load in the last minute.
pub(crate) fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

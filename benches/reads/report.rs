//! The table at the end.

use comfy_table::{Table, presets::ASCII_MARKDOWN};

/// All figures, and what went wrong.
#[derive(Default)]
pub struct Report {
    rows: Vec<[String; 3]>,
    /// Stale reads and lost writes.
    pub faults: Vec<String>,
}

impl Report {
    /// One figure, and what it should be.
    pub fn row(&mut self, name: &str, value: String, budget: &str) {
        println!("{name}: {value}");
        self.rows.push([name.into(), value, budget.into()]);
    }

    /// Prints them.
    pub fn print(&self) {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN);
        table.set_header(["figure", "pgusher", "budget"]);
        table.add_rows(&self.rows);
        println!("\n{table}");
    }
}

/// The machine's load in the last minute.
pub fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// The middle one.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

//! Prometheus' text format, for numbers that no recorder keeps: series that come and go, and histograms
//! whose counts are somebody else's.

use std::fmt::{Display, Write as _};

/// What the numbers of a family are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They only ever grow.
    Counter,
    /// They come and go.
    Gauge,
    /// How many were how large.
    Histogram,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric with all its labels.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What its numbers are.
    pub kind: Kind,
    /// A sentence.
    pub help: &'static str,
}

/// A text that grows. Each family is begun once, and its samples follow it.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Behind what is there already.
    pub fn after(text: String) -> Self {
        Self(text)
    }

    /// Begins a family.
    pub fn family(&mut self, family: &Family) {
        let (name, kind) = (family.name, family.kind.as_str());
        self.0.extend(["# HELP ", name, " "]);
        self.escaped(family.help, false);
        self.0.extend(["\n# TYPE ", name, " ", kind, "\n"]);
    }

    /// A sample of the family that was begun last; `suffix` is of histograms.
    pub fn sample(
        &mut self,
        (family, suffix): (&Family, &str),
        labels: &[(&str, &str)],
        value: impl Display,
    ) {
        self.0.extend([family.name, suffix]);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            self.0.extend([label, "=\""]);
            self.escaped(text, true);
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        // A text takes whatever is written.
        writeln!(self.0, " {value}").ok();
    }

    fn escaped(&mut self, text: &str, has_quotes: bool) {
        for c in text.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                '"' if has_quotes => self.0.push_str("\\\""),
                c => self.0.push(c),
            }
        }
    }

    /// All of it.
    pub fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_line_or_a_label_is_escaped() {
        let family = Family {
            name: "pgusher_x",
            kind: Kind::Gauge,
            help: "A \"help\"\nof two\\lines.",
        };
        let mut text = Text::after("a 1\n".to_owned());
        text.family(&family);
        text.sample((&family, ""), &[], 1);
        text.sample((&family, "_sum"), &[("a", "x\"\\\n"), ("le", "0.5")], 2.5);
        assert_eq!(
            text.into_string(),
            "a 1\n\
             # HELP pgusher_x A \"help\"\\nof two\\\\lines.\n\
             # TYPE pgusher_x gauge\n\
             pgusher_x 1\n\
             pgusher_x_sum{a=\"x\\\"\\\\\\n\",le=\"0.5\"} 2.5\n"
        );
    }
}

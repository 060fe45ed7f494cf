//! A report as CSV (RFC 4180).

use super::{CostLine, CostReport};

const HEADINGS: [&str; 21] = [
    "month",
    "currency",
    "tenant",
    "plan",
    "cluster",
    "queries",
    "transactions",
    "client_bytes",
    "server_bytes",
    "server_time_us",
    "server_hours",
    "gb_months",
    "queries_amount",
    "transactions_amount",
    "bytes_in_amount",
    "bytes_out_amount",
    "server_time_amount",
    "storage_amount",
    "plan_amount",
    "cluster_amount",
    "total_amount",
];

/// A field, in quotes where it needs them.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

impl CostReport {
    /// As CSV: a line of headings, one for each line, and the sums, whose tenant is `(total)`.
    pub fn csv(&self) -> String {
        let mut text = HEADINGS.join(",");
        text.push_str("\r\n");
        for line in self.lines.iter().chain([&self.total]) {
            let fields: Vec<_> = self.fields(line).iter().map(|text| field(text)).collect();
            text.push_str(&fields.join(","));
            text.push_str("\r\n");
        }
        text
    }

    fn fields(&self, line: &CostLine) -> Vec<String> {
        let used = &line.quantities;
        let mut fields = vec![
            self.month.to_string(),
            self.currency.clone(),
            line.tenant.clone(),
            line.plan.clone().unwrap_or_default(),
            line.cluster.clone().unwrap_or_default(),
        ];
        let numbers = [
            used.queries,
            used.transactions,
            used.client_bytes,
            used.server_bytes,
            used.server_time_us,
        ];
        fields.extend(numbers.map(|number| number.to_string()));
        fields.extend([used.server_hours(), used.gb_months].map(|number| number.to_string()));
        fields.extend(line.amounts.all().map(|amount| amount.to_string()));
        fields.push(line.total.to_string());
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_every_field_and_quotes_what_would_break_it() {
        let odd = CostLine {
            tenant: "acme".to_owned(),
            plan: Some("a, \"b\"\nc".to_owned()),
            ..CostLine::default()
        };
        let report = CostReport {
            month: "2026-11".parse().unwrap(),
            currency: "EUR".to_owned(),
            lines: vec![odd],
            total: CostLine::default(),
        };
        let csv = report.csv();
        assert!(
            csv.contains("2026-11,EUR,acme,\"a, \"\"b\"\"\nc\",,0,0,"),
            "{csv}"
        );
        let mut lines = csv.split("\r\n");
        assert_eq!(lines.next().unwrap().split(',').count(), HEADINGS.len());
        assert_eq!(lines.nth(1).unwrap().split(',').count(), HEADINGS.len());
        assert_eq!(lines.next(), Some(""));
        assert_eq!(lines.next(), None);
    }
}

//! Prometheus' text format, version 0.0.4: each family begins with its head, its lines follow, and no other's come in between.

use super::Histogram;

/// The text being written.
#[derive(Default)]
pub(super) struct Page(String);

impl Page {
    /// All of it.
    pub(super) fn into_text(self) -> String {
        self.0
    }

    pub(super) fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.0.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    pub(super) fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.0.push_str(&format!("{name}{labels} {value}\n"));
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.line(name, &[], value);
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: i64) {
        self.head(name, "gauge", help);
        self.line(name, &[], value);
    }

    /// One histogram of a family.
    pub(super) fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let (buckets, sum_s) = histogram.read();
        let mut total = 0;
        for (bound_s, count) in buckets {
            total += count;
            let bound = bound_s.map_or("+Inf".to_owned(), |seconds| seconds.to_string());
            self.line(&format!("{name}_bucket"), &[labels, &[("le", &bound)]].concat(), total);
        }
        self.line(&format!("{name}_sum"), labels, sum_s);
        self.line(&format!("{name}_count"), labels, total);
    }
}

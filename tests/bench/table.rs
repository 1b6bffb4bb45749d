//! The results: a table for people, JSON for machines.

use std::path::Path;

use serde_json::{Value, json};

/// Rows as they come.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

struct Row {
    what: String,
    ours: String,
    peer: String,
    ratio: Option<f64>,
    aim: String,
    json: Value,
}

impl Row {
    fn line(&self) -> String {
        let ratio = self.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        format!("| {} | {} | {} | {ratio} | {} |", self.what, self.ours, self.peer, self.aim)
    }
}

impl Table {
    /// A figure of ours beside a peer's; `ratio` is ours divided by the peer's, or turned so that more is better.
    pub(crate) fn beside(&mut self, what: &str, unit: &str, ours: f64, peer: (&str, f64), ratio: f64, aim: &'static str) {
        self.add(Row {
            what: format!("{what} ({unit})"),
            ours: number(ours),
            peer: format!("{} ({})", number(peer.1), peer.0),
            ratio: Some(ratio).filter(|ratio| ratio.is_finite()),
            aim: aim.to_owned(),
            json: json!({"what": what, "unit": unit, "ours": ours, "peer": peer.0, "peers": peer.1, "ratio": ratio, "aim": aim}),
        });
    }

    /// A figure without a peer.
    pub(crate) fn alone(&mut self, what: &str, unit: &str, ours: f64, aim: &'static str) {
        self.add(Row {
            what: format!("{what} ({unit})"),
            ours: number(ours),
            peer: String::new(),
            ratio: None,
            aim: aim.to_owned(),
            json: json!({"what": what, "unit": unit, "ours": ours, "aim": aim}),
        });
    }

    /// A figure without a peer that has to stay within a bound, and whether it does.
    pub(crate) fn within(&mut self, what: &str, unit: &str, ours: f64, bound: f64) {
        let is_within = ours <= bound;
        self.add(Row {
            what: format!("{what} ({unit})"),
            ours: number(ours),
            peer: String::new(),
            ratio: None,
            aim: format!("{bound}: {}", if is_within { "within" } else { "MISSED" }),
            json: json!({"what": what, "unit": unit, "ours": ours, "aim": bound, "within": is_within}),
        });
    }

    /// Shows a row as soon as it is there: a run takes long, and may be cut.
    fn add(&mut self, row: Row) {
        eprintln!("  {}", row.line());
        self.rows.push(row);
    }

    /// Prints the table as Markdown and writes the JSON to `target/bench/NAME.json`.
    pub(crate) fn print(&self, name: &str) -> anyhow::Result<()> {
        println!("| figure | Selvedge | peer | ratio | aim |\n|---|---|---|---|---|");
        for row in &self.rows {
            println!("{}", row.line());
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/bench/{name}.json"));
        let rows: Vec<_> = self.rows.iter().map(|row| &row.json).collect();
        std::fs::write(&path, serde_json::to_vec_pretty(&json!({ "figures": rows }))?)?;
        Ok(())
    }
}

fn number(figure: f64) -> String {
    if figure >= 1000.0 { format!("{figure:.0}") } else { format!("{figure:.2}") }
}

//! The only printer: tables for people, JSON for machines (`--json`), progress and warnings on standard error.

use std::io::{IsTerminal, Write};

/// Where and how a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    quiet: bool,
    color: bool,
    live: bool,
}

/// What a cell says about its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Wrong.
    Bad,
    /// Neither.
    Plain,
    /// Less important.
    Dim,
}

/// One cell of a table.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell with a tone.
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl Output {
    /// For this process: colours only on a terminal and without `NO_COLOR` (no-color.org).
    pub fn new(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            json,
            quiet: false,
            color: !json && !plain && std::io::stdout().is_terminal() && std::io::stderr().is_terminal(),
            live: std::io::stderr().is_terminal(),
        }
    }

    /// Whether JSON is wanted.
    pub fn json(&self) -> bool {
        self.json
    }

    /// The same without progress.
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Whether colours are wanted.
    pub fn color(&self) -> bool {
        self.color
    }

    /// Prints a line of the result; nothing with `--json`.
    pub fn line(&self, text: impl AsRef<str>) {
        if !self.json {
            print(std::io::stdout(), &self.tidy(text.as_ref()));
        }
    }

    /// Prints the result as one JSON document; nothing without `--json`.
    pub fn document(&self, value: &serde_json::Value) {
        if self.json {
            print(std::io::stdout(), &value.to_string());
        }
    }

    /// Prints a line for scripts on standard output, in both modes.
    pub fn machine_line(&self, value: &serde_json::Value) {
        print(std::io::stdout(), &value.to_string());
    }

    /// Says what is being done, on standard error.
    pub fn progress(&self, text: impl AsRef<str>) {
        if !self.quiet {
            print(std::io::stderr(), &self.paint(&self.tidy(text.as_ref()), Tone::Dim));
        }
    }

    /// Says a step of long work that the next one replaces on a terminal.
    pub fn step(&self, text: impl AsRef<str>) {
        if self.live {
            let line = self.paint(&clean(text.as_ref()), Tone::Dim);
            let _ = write!(std::io::stderr(), "\r\x1b[2K{line}").and_then(|()| std::io::stderr().flush());
        } else {
            self.progress(text);
        }
    }

    /// Ends a line that [`Self::step`] began.
    pub fn step_done(&self) {
        if self.live {
            let _ = write!(std::io::stderr(), "\r\x1b[2K").and_then(|()| std::io::stderr().flush());
        }
    }

    /// Warns, on standard error.
    pub fn warn(&self, text: impl AsRef<str>) {
        print(std::io::stderr(), &format!("{} {}", self.paint("warning:", Tone::Bad), self.tidy(text.as_ref())));
    }

    /// Says why the command failed, on standard error; as JSON on standard output too with `--json`.
    pub fn error(&self, error: &anyhow::Error) {
        let mut text = String::new();
        for cause in error.chain().map(ToString::to_string) {
            // Many errors name their cause in their own text already.
            if text.is_empty() {
                text = cause;
            } else if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        print(std::io::stderr(), &format!("{} {}", self.paint("error:", Tone::Bad), self.tidy(&text)));
        self.document(&serde_json::json!({ "error": text }));
    }

    /// Prints a table, columns as wide as their longest cell.
    pub fn table(&self, head: &[&str], rows: &[Vec<Cell>]) {
        if self.json {
            return;
        }
        let mut widths: Vec<usize> = head.iter().map(|title| title.chars().count()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let titles = head.iter().map(|title| Cell::new(*title, Tone::Dim)).collect();
        for row in std::iter::once(&titles).chain(rows) {
            let mut line = String::new();
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let text = clean(&cell.text);
                let padding = width.saturating_sub(text.chars().count());
                let last = index + 1 == row.len();
                line.push_str(&self.paint(&text, cell.tone));
                line.push_str(&" ".repeat(if last { 0 } else { padding + 2 }));
            }
            print(std::io::stdout(), &line);
        }
    }

    /// Prints a title, what is said of it, and lines of a label and a text each; a label that repeats is shown once.
    pub fn block(&self, title: &str, said: &str, tone: Tone, rows: &[(&str, String)]) {
        if self.json {
            return;
        }
        print(std::io::stdout(), &format!("{}: {}", clean(title), self.paint(&clean(said), tone)));
        let width = rows.iter().map(|(label, _)| label.len()).max().unwrap_or_default();
        let mut last = "";
        for (label, text) in rows.iter().filter(|(_, text)| !text.is_empty()) {
            let shown = if *label == last { "" } else { label };
            let padding = " ".repeat(width.saturating_sub(shown.len()) + 2);
            print(std::io::stdout(), &format!("  {}{padding}{}", self.paint(shown, Tone::Dim), clean(text)));
            last = label;
        }
    }

    /// Text of several lines, some of it from elsewhere: it may have lines, tabs, and colours where colours are wanted, but no other control characters.
    fn tidy(&self, text: &str) -> String {
        let mut tidy = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let colour = if self.color { colour_of(rest) } else { "" };
            let own = if colour.is_empty() { first.len_utf8() } else { colour.len() };
            let keeps = !colour.is_empty() || !first.is_control() || matches!(first, '\n' | '\t');
            tidy.push_str(if keeps { rest.get(..own).unwrap_or_default() } else { " " });
            rest = rest.get(own..).unwrap_or_default();
        }
        tidy
    }

    /// The text in the colour of its tone.
    pub fn paint(&self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Dim => "2",
            Tone::Plain => return text.to_owned(),
        };
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The escape sequence for a colour that a text begins with (ECMA-48, section 8.3.117); not one that hides what follows. Empty where there is none.
fn colour_of(text: &str) -> &str {
    let parameters = text.strip_prefix("\x1b[").and_then(|rest| rest.split_once('m')).map_or("x", |(parameters, _)| parameters);
    let is_colour = parameters.bytes().all(|byte| byte.is_ascii_digit() || byte == b';');
    if is_colour && hides_nothing(parameters) { text.get(.."\x1b[m".len() + parameters.len()).unwrap_or_default() } else { "" }
}

/// Whether none of the parameters is 8, which hides text, in any spelling; those that name a colour of 38 or 48 (`5;n`, `2;r;g;b`: ISO 8613-6) are none of their own.
/// What terminals may read in other ways hides something.
fn hides_nothing(parameters: &str) -> bool {
    let mut numbers = parameters.split(';').map(|one| if one.is_empty() { Some(0) } else { one.parse::<u8>().ok() });
    while let Some(number) = numbers.next() {
        let of_a_colour = match number {
            None | Some(8) => return false,
            Some(38 | 48) => match numbers.next().flatten() {
                Some(5) => 1,
                Some(2) => 3,
                _ => return false,
            },
            Some(_) => 0,
        };
        if (0..of_a_colour).any(|_| numbers.next().flatten().is_none()) {
            return false;
        }
    }
    true
}

/// Text from elsewhere must not move the cursor.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Writes a line. A closed pipe (`selvedge status | head`) is the reader's wish, not an error.
fn print(mut to: impl Write, line: &str) {
    let _ = writeln!(to, "{line}").and_then(|()| to.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_has_lines_and_colours_and_moves_nothing() {
        let plain = Output { json: false, quiet: false, color: false, live: false };
        let colours = Output { color: true, ..plain };
        let hostile = "a\u{1b}[2J\u{1b}]0;title\u{7}\r\u{9b}1A\tb\n\u{1b}[31mred\u{1b}[0m\u{1b}[8mhidden\u{1b}[";
        assert_eq!(plain.tidy(hostile), "a [2J ]0;title   1A\tb\n [31mred [0m [8mhidden [");
        assert_eq!(colours.tidy(hostile), "a [2J ]0;title   1A\tb\n\u{1b}[31mred\u{1b}[0m [8mhidden [");
        assert_eq!(colours.tidy(&colours.paint("good", Tone::Good)), colours.paint("good", Tone::Good));
    }

    #[test]
    fn what_hides_text_is_no_colour_and_an_eighth_colour_is_one() {
        for colour in ["", "0", "1;31", "38;5;8", "48;5;08", "38;2;8;8;8;1", "38;5;8;48;2;0;0;8", ";;"] {
            let text = format!("\u{1b}[{colour}m");
            assert_eq!(colour_of(&text), text);
        }
        for hidden in ["8", "08", "0;8", "31;008;1", "38;5;8;8", "38;2;1;2;3;8", "38;8", "38;2;8", "38", "264", "4294967304", "58;5;8"] {
            assert_eq!(colour_of(&format!("\u{1b}[{hidden}m")), "", "{hidden}");
        }
    }
}

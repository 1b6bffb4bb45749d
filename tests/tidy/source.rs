//! Reads the project's own source for the checks: Rust files and manifests, without what is there for tests only.

use std::path::{Path, PathBuf};

/// What stands before an item that is there for tests only.
const FOR_TESTS: &str = "#[cfg(test)]";

/// One file of the project.
pub(crate) struct Source {
    /// Relative to the project's root.
    pub(crate) path: PathBuf,
    /// Its text.
    pub(crate) text: String,
}

impl Source {
    /// Every Rust file.
    pub(crate) fn all() -> Vec<Self> {
        Self::with_ending(".rs")
    }

    /// Every `Cargo.toml`.
    pub(crate) fn manifests() -> Vec<Self> {
        Self::with_ending("Cargo.toml")
    }

    /// A file that is nowhere: what a check must find.
    pub(crate) fn planted(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.to_owned() }
    }

    fn with_ending(ending: &str) -> Vec<Self> {
        let root = root();
        let mut found = Vec::new();
        for top in ["Cargo.toml", "runtime", "origin", "edge-node", "deploy", "tests"] {
            collect(&root.join(top), &root, ending, &mut found);
        }
        assert!(found.len() > 5, "only {} files end with {ending}: the check looks in the wrong place", found.len());
        found
    }

    /// The file is this one.
    pub(crate) fn is(&self, path: &str) -> bool {
        self.path == Path::new(path)
    }

    /// The file's path begins with `prefix`.
    pub(crate) fn under(&self, prefix: &str) -> bool {
        self.path.to_string_lossy().starts_with(prefix)
    }

    /// The file is there for tests only: a module of them, or a client that only they use.
    fn for_tests(&self) -> bool {
        let path = self.path.to_string_lossy();
        path.contains("/tests/") || path.ends_with("tests.rs") || self.text.lines().any(|line| line == "#![cfg(test)]")
    }

    /// Functions longer than `lines_max` lines, by the line on which they begin. Relies on rustfmt: a function ends at the first `}` as far in
    /// as its beginning.
    pub(crate) fn long_functions(&self, lines_max: usize) -> Vec<usize> {
        let lines: Vec<&str> = self.text.lines().collect();
        let mut long = Vec::new();
        for (index, line) in lines.iter().enumerate().filter(|(_, line)| begins_function(line)) {
            let end = format!("{}}}", " ".repeat(indent(line)));
            let head_ends = lines[index..].iter().find(|line| line.ends_with('{') || line.ends_with(';') || line.ends_with('}'));
            if !head_ends.is_some_and(|line| line.ends_with('{')) {
                continue; // a declaration, or all of it on one line
            }
            let length = lines[index..].iter().position(|line| *line == end);
            if length.is_some_and(|length| length > lines_max) {
                long.push(index + 1);
            }
        }
        long
    }

    /// Lines with their numbers, without comments and without items for tests only, wherever they stand; none of a file that is for tests.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.indented().map(|(number, line)| (number, line.trim()))
    }

    /// The same with the white space that they begin with.
    fn indented(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<&str> = if self.for_tests() { Vec::new() } else { self.text.lines().collect() };
        let mut kept = Vec::new();
        let mut next = 0;
        while let Some(line) = lines.get(next) {
            if line.trim() == FOR_TESTS {
                next = end_of_item(&lines, next + 1);
            } else if !line.trim_start().starts_with("//") {
                kept.push((next + 1, *line));
            }
            next += 1;
        }
        kept.into_iter()
    }
}

/// Where the item that begins at `from` ends. Relies on rustfmt, as above: attributes, then lines of which the last is as far in as the first.
fn end_of_item(lines: &[&str], from: usize) -> usize {
    let Some(first) = (from..lines.len()).find(|at| !lines[*at].trim_start().starts_with("#[")) else { return lines.len() };
    let ends = |line: &str| indent(line) == indent(lines[first]) && line.ends_with([';', '}', ',']);
    (first..lines.len()).find(|at| ends(lines[*at])).unwrap_or(lines.len())
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The line begins a function, whatever it is called by and for.
fn begins_function(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| {
        let visible = word.starts_with("pub(") || ["pub", "in"].contains(word) || word.ends_with(')') && word.contains("::");
        visible || ["async", "const", "unsafe", "extern", "\"C\"", "\"system\"", "default"].contains(word)
    });
    words.next() == Some("fn")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the project").to_path_buf()
}

fn collect(path: &Path, root: &Path, ending: &str, found: &mut Vec<Source>) {
    if path.is_dir() {
        let mut entries: Vec<_> = std::fs::read_dir(path).expect("a folder of the project").flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for entry in entries {
            if !["node_modules", "target"].iter().any(|name| entry.ends_with(name)) {
                collect(&entry, root, ending, found);
            }
        }
    } else if path.to_string_lossy().ends_with(ending) {
        let text = std::fs::read_to_string(path).expect("a text file of the project");
        found.push(Source { path: path.strip_prefix(root).expect("below the root").to_path_buf(), text });
    }
}

/// The line names `name` as a word or path of its own, not as the end of a longer word.
pub(crate) fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// What breaks one rule, gathered so that a run shows all of it.
pub(crate) struct Violations {
    rule: String,
    pub(crate) places: Vec<String>,
}

impl Violations {
    /// Of a rule that reads "every file …".
    pub(crate) fn new(rule: &str) -> Self {
        Self { rule: rule.to_owned(), places: Vec::new() }
    }

    /// One place.
    pub(crate) fn add(&mut self, file: &Source, line: usize) {
        self.places.push(format!("{}:{line}", file.path.display()));
    }

    /// Every line of code inside of something else that breaks it.
    pub(crate) fn inner_lines(&mut self, file: &Source, breaks: impl Fn(&str) -> bool) {
        for (number, _) in file.indented().filter(|(_, line)| line.starts_with(' ') && breaks(line.trim())) {
            self.add(file, number);
        }
    }

    /// Fails with all places.
    pub(crate) fn none(self) {
        assert!(self.places.is_empty(), "every file {}, but not these:\n  {}", self.rule, self.places.join("\n  "));
    }
}

#[test]
fn what_is_for_tests_only_is_left_out_and_nothing_else() {
    let text = "//! A file.\n#[cfg(test)]\nmod tests;\nuse a;\n#[cfg(test)]\n#[allow(x)]\nfn two(\n    a: u8,\n) -> u8 {\n    1\n}\nstruct A {\n    #[cfg(test)]\n    \
                b: u8,\n    c: u8,\n}\n// no code\n#[cfg(test)]\nmod more {\n    fn d() {}\n}\nfn last() {}\n";
    let file = Source::planted("x/src/a.rs", text);
    let code: Vec<&str> = file.code().map(|(_, line)| line).collect();
    assert_eq!(code, ["use a;", "struct A {", "c: u8,", "}", "fn last() {}"]);
    assert_eq!(file.code().last(), Some((22, "fn last() {}")));
    assert_eq!(Source::planted("x/src/tests/a.rs", text).code().count(), 0);
}

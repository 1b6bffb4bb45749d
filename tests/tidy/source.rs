//! Reads the project's own source for the checks: tracked Rust files and manifests, without test modules.

use std::path::{Path, PathBuf};

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
        path.contains("/tests/") || path.ends_with("/tests.rs") || self.text.lines().any(|line| line == "#![cfg(test)]")
    }

    /// Functions longer than `lines_max` lines, by the line on which they begin. Relies on rustfmt: a function ends at the first `}` as far in
    /// as its beginning.
    pub(crate) fn long_functions(&self, lines_max: usize) -> Vec<usize> {
        let lines: Vec<&str> = self.text.lines().collect();
        let is_function = |line: &str| {
            let words = line.trim_start();
            [
                "fn ",
                "pub fn ",
                "async fn ",
                "pub async fn ",
                "pub(crate) fn ",
                "pub(super) fn ",
                "pub(crate) async fn ",
                "pub(super) async fn ",
            ]
            .iter()
            .any(|start| words.starts_with(start))
        };
        let mut long = Vec::new();
        for (index, line) in lines.iter().enumerate().filter(|(_, line)| is_function(line)) {
            let indent = line.len() - line.trim_start().len();
            let end = format!("{}}}", " ".repeat(indent));
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

    /// Lines with their numbers, up to the file's own test module, without comments; none of a file that is for tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.indented().map(|(number, line)| (number, line.trim()))
    }

    /// The same with the white space that they begin with.
    fn indented(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = (1..).zip(self.text.lines());
        let lines = lines.take_while(|(_, line)| line.trim() != "#[cfg(test)]" && !self.for_tests());
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
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

/// The line names `name` as a path of its own, not as the end of a longer word.
pub(crate) fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// What breaks one rule, gathered so that a run shows all of it.
pub(crate) struct Violations {
    rule: String,
    places: Vec<String>,
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

    /// Every line of code that breaks it.
    pub(crate) fn lines(&mut self, file: &Source, breaks: impl Fn(&str) -> bool) {
        for (number, _) in file.code().filter(|(_, line)| breaks(line)) {
            self.add(file, number);
        }
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

//! A folder with a worker: `wrangler.jsonc`, `wrangler.json` or `wrangler.toml`, read into a [`Project`]. What Selvedge does not
//! support fails or warns by name; nothing is ignored silently.

mod dev_vars;
mod format;
mod keys;
mod raw;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use selvedge_origin::registry::{CompressSettings, WorkerName, is_date};

pub use dev_vars::parse as parse_dev_vars;
pub(crate) use format::table;
pub use format::{Format, FormatError};

use selvedge_origin::limits::{CPU_MS_MAX, ROUTES_PER_OWNER_MAX, SUBREQUESTS_MAX};

use crate::limits::CONFIG_BYTES_MAX;

/// The file names that make a folder a project, in the order in which they are looked for.
pub const FILE_NAMES: [&str; 3] = ["wrangler.jsonc", "wrangler.json", "wrangler.toml"];

/// A worker's folder, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// The worker's name.
    pub name: WorkerName,
    /// The entry module, relative to the folder.
    pub main: PathBuf,
    /// `YYYY-MM-DD`.
    pub compatibility_date: String,
    /// Compatibility flags, as written.
    pub compatibility_flags: Vec<String>,
    /// Plain bindings.
    pub vars: BTreeMap<String, serde_json::Value>,
    /// Route patterns (`HOST/PATH`).
    pub routes: Vec<String>,
    /// `limits.cpu_ms`.
    pub cpu_ms: Option<u32>,
    /// `limits.subrequests`.
    pub subrequests: Option<u32>,
    /// `cache.enabled`: the worker's answers may be cached.
    pub cache_enabled: Option<bool>,
    /// `cache.cross_version_cache`: a new version answers from what older ones left.
    pub cache_cross_version: bool,
    /// `compress`: how the worker's answers are compressed.
    pub compress: CompressSettings,
    /// `early_hints`: send `103 Early Hints` made from earlier answers.
    pub early_hints: bool,
    /// Keys that are known to wrangler and have no effect here, with the reason.
    pub warnings: Vec<String>,
}

/// Why a folder is not a project.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// No configuration file.
    #[error("{}: no wrangler.jsonc, wrangler.json or wrangler.toml; create one with at least \"name\", \"main\" and \"compatibility_date\"", .0.display())]
    Missing(PathBuf),
    /// A file could not be read.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{}: larger than {CONFIG_BYTES_MAX} bytes, which no configuration is", .0.display())]
    TooLarge(PathBuf),
    /// The file's content is refused.
    #[error("{file}: {problem}")]
    Content {
        /// The file.
        file: String,
        /// What is wrong, with the key's path.
        problem: Problem,
    },
}

/// What is wrong inside a configuration file.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Problem {
    /// Not the format that the file's name says.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A key that nobody knows.
    #[error("unknown key {key:?}{hint}")]
    UnknownKey {
        /// The key.
        key: String,
        /// A known one that looks like it.
        hint: String,
    },
    /// A key that wrangler knows and without which the worker would misbehave.
    #[error("{key}: not supported by Selvedge: {reason}")]
    Unsupported {
        /// The key.
        key: String,
        /// Why it cannot be ignored, or what to do.
        reason: &'static str,
    },
    /// A value of the wrong kind or out of bounds.
    #[error("{path}: {message}")]
    Value {
        /// The key's path, such as `limits.cpu_ms`.
        path: String,
        /// What is wrong.
        message: String,
    },
}

impl Problem {
    pub(crate) fn value(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Value { path: path.into(), message: message.into() }
    }
}

impl Project {
    /// Reads the project in `dir`.
    pub fn load(dir: &Path) -> Result<Self, ProjectError> {
        let path = Self::config_path(dir).ok_or_else(|| ProjectError::Missing(dir.to_owned()))?;
        let text = read_bounded(&path)?;
        let format = Format::of(&path);
        Self::parse(format, &text).map_err(|problem| ProjectError::Content { file: path.display().to_string(), problem })
    }

    /// The configuration file of `dir`, where it has one.
    pub fn config_path(dir: &Path) -> Option<PathBuf> {
        FILE_NAMES.iter().map(|name| dir.join(name)).find(|path| path.is_file())
    }

    /// Reads the text of a configuration file.
    pub fn parse(format: Format, text: &str) -> Result<Self, Problem> {
        let mut table = format::table(format, text)?;
        let warnings = keys::sort_out(&mut table)?;
        raw::RawProject::read(table)?.check(warnings)
    }

    /// The variables of `.dev.vars` in `dir`; empty where there is no such file.
    pub fn dev_vars(dir: &Path) -> Result<BTreeMap<String, String>, ProjectError> {
        let path = dir.join(".dev.vars");
        if !path.exists() {
            return Ok(BTreeMap::new());
        }
        let text = read_bounded(&path)?;
        parse_dev_vars(&text).map_err(|problem| ProjectError::Content { file: path.display().to_string(), problem })
    }
}

/// Reads a configuration file of bounded size.
pub(crate) fn read_bounded(path: &Path) -> Result<String, ProjectError> {
    use std::io::Read;
    let io = |error| ProjectError::Io { path: path.to_owned(), error };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(io)?;
    let read = file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text).map_err(io)?;
    if read as u64 > CONFIG_BYTES_MAX {
        return Err(ProjectError::TooLarge(path.to_owned()));
    }
    Ok(text)
}

impl raw::RawProject {
    /// Checks the values and makes the project.
    fn check(self, mut warnings: Vec<String>) -> Result<Project, Problem> {
        let name = self.name.ok_or_else(|| Problem::value("name", "missing; it names the worker, such as \"shop\""))?;
        let name = name.parse::<WorkerName>().map_err(|error| Problem::value("name", error.to_string()))?;
        let main = self.main.ok_or_else(|| Problem::value("main", "missing; it names the entry module, such as \"src/index.ts\""))?;
        let compatibility_date = self.compatibility_date.ok_or_else(|| {
            Problem::value("compatibility_date", "missing; write the day on which you wrote the worker, as \"YYYY-MM-DD\"")
        })?;
        if !is_date(&compatibility_date) {
            return Err(Problem::value("compatibility_date", format!("{compatibility_date:?} is not a date of the form YYYY-MM-DD")));
        }
        let without_effect =
            |flag: &String| format!("compatibility_flags: {flag}: has no effect: workers find the same whatever flags they have");
        warnings.extend(self.compatibility_flags.iter().map(without_effect));
        let (cpu_ms, subrequests) = self.limits.map(|limits| (limits.cpu_ms, limits.subrequests)).unwrap_or_default();
        self.compress.check().map_err(|(key, rule)| Problem::value(format!("compress.{key}"), rule))?;
        bounded("limits.cpu_ms", cpu_ms, CPU_MS_MAX)?;
        bounded("limits.subrequests", subrequests, SUBREQUESTS_MAX)?;
        Ok(Project {
            name,
            main: check_main(&main)?,
            compatibility_date,
            compatibility_flags: self.compatibility_flags,
            vars: self.vars,
            routes: patterns(self.route, self.routes)?,
            cpu_ms,
            subrequests,
            cache_enabled: self.cache.as_ref().and_then(|cache| cache.enabled),
            cache_cross_version: self.cache.is_some_and(|cache| cache.cross_version_cache),
            compress: self.compress,
            early_hints: self.early_hints,
            warnings,
        })
    }
}

fn check_main(main: &str) -> Result<PathBuf, Problem> {
    let path = PathBuf::from(main);
    if main.is_empty() || main.contains('\0') {
        return Err(Problem::value("main", "is not a path"));
    }
    if path.is_absolute() {
        return Err(Problem::value("main", "must be relative to the folder of this file"));
    }
    Ok(path)
}

fn bounded(path: &str, value: Option<u32>, most: u32) -> Result<(), Problem> {
    match value {
        Some(value) if value < 1 || value > most => Err(Problem::value(path, format!("{value} is not between 1 and {most}"))),
        _ => Ok(()),
    }
}

fn patterns(route: Option<raw::RawRoute>, routes: Option<Vec<raw::RawRoute>>) -> Result<Vec<String>, Problem> {
    let mut patterns = Vec::new();
    if route.is_some() && routes.is_some() {
        return Err(Problem::value("route", "write either \"route\" or \"routes\", not both"));
    }
    let single = route.is_some();
    for (index, route) in route.into_iter().chain(routes.into_iter().flatten()).enumerate() {
        let path = if single { "route".to_owned() } else { format!("routes[{index}]") };
        if index >= ROUTES_PER_OWNER_MAX {
            return Err(Problem::value("routes", format!("more than {ROUTES_PER_OWNER_MAX} routes")));
        }
        let pattern = route.pattern().map_err(|message| Problem::value(&path, message))?;
        if patterns.contains(&pattern) {
            return Err(Problem::value(path, format!("{pattern:?} is there twice")));
        }
        patterns.push(pattern);
    }
    Ok(patterns)
}

/// Feeds generated bytes to the parsers of `wrangler.*` and `.dev.vars`: no input may panic or take long.
pub fn fuzz(bytes: &[u8]) {
    let Some((selector, rest)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match selector % 3 {
        0 => drop(Project::parse(Format::Json, text)),
        1 => drop(Project::parse(Format::Toml, text)),
        _ => drop(parse_dev_vars(text)),
    }
}

#[cfg(test)]
mod tests;

//! From the text of a file to a table of JSON values, whichever of the two formats it has.

use std::path::Path;

use crate::limits::CONFIG_DEPTH_MAX;

/// The format of a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON, with comments and trailing commas allowed.
    Json,
    /// TOML.
    Toml,
}

impl Format {
    /// The format that the file's name says; JSON where it says nothing.
    pub fn of(path: &Path) -> Self {
        if path.extension().is_some_and(|extension| extension == "toml") { Self::Toml } else { Self::Json }
    }
}

/// Why a text is not a table in its format. Each carries its line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Not JSON.
    #[error("{0}")]
    Json(String),
    /// Not TOML.
    #[error("line {line} column {column}: {message}")]
    Toml {
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// Deeper than any configuration.
    #[error("line {0}: nested deeper than {CONFIG_DEPTH_MAX} levels")]
    TooDeep(usize),
    /// A value, but not a table.
    #[error("the file must hold one object with keys")]
    NotATable,
}

/// The keys and values of a file.
pub(crate) type Table = serde_json::Map<String, serde_json::Value>;

/// Reads a text as a table.
pub(crate) fn table(format: Format, text: &str) -> Result<Table, FormatError> {
    let value = match format {
        Format::Json => json(text)?,
        Format::Toml => return toml_table(text),
    };
    match value {
        serde_json::Value::Object(table) => Ok(table),
        _ => Err(FormatError::NotATable),
    }
}

fn json(text: &str) -> Result<serde_json::Value, FormatError> {
    check_depth(text)?;
    let options =
        jsonc_parser::ParseOptions { allow_comments: true, allow_loose_object_property_names: false, allow_trailing_commas: true };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match jsonc_parser::parse_to_serde_value(text, &options) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => Err(FormatError::NotATable),
        Err(error) => Err(FormatError::Json(format!("line {} column {}: {}", error.line_display(), error.column_display(), error.kind()))),
    }
}

/// Refuses what is nested too deep, since the parser recurses. Looks at brackets outside of strings and comments.
fn check_depth(text: &str) -> Result<(), FormatError> {
    let mut depth = 0usize;
    let mut line = 1;
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\n' => line += 1,
            b'{' | b'[' => {
                depth += 1;
                if depth > CONFIG_DEPTH_MAX {
                    return Err(FormatError::TooDeep(line));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' | b'\'' => {
                while let Some(inner) = bytes.next() {
                    match inner {
                        b'\\' => {
                            bytes.next();
                        }
                        b'\n' => line += 1,
                        _ if inner == byte => break,
                        _ => {}
                    }
                }
            }
            b'/' if bytes.peek() == Some(&b'/') => {
                for inner in bytes.by_ref() {
                    if inner == b'\n' {
                        line += 1;
                        break;
                    }
                }
            }
            b'/' if bytes.peek() == Some(&b'*') => {
                bytes.next();
                let mut last = 0;
                for inner in bytes.by_ref() {
                    if inner == b'\n' {
                        line += 1;
                    }
                    if last == b'*' && inner == b'/' {
                        break;
                    }
                    last = inner;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn toml_table(text: &str) -> Result<Table, FormatError> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| toml_error(text, &error))?;
    let mut out = Table::new();
    for (key, value) in table {
        out.insert(key, toml_value(value));
    }
    Ok(out)
}

fn toml_error(text: &str, error: &toml::de::Error) -> FormatError {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    FormatError::Toml { line, column, message: error.message().to_owned() }
}

/// TOML's values as JSON's; dates become their text. The depth is bounded by TOML's parser.
fn toml_value(value: toml::Value) -> serde_json::Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Array(values) => values.into_iter().map(toml_value).collect(),
        toml::Value::Table(table) => serde_json::Value::Object(table.into_iter().map(|(key, value)| (key, toml_value(value))).collect()),
    }
}

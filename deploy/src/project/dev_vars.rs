//! `.dev.vars`: `NAME=value` lines, merged over `vars` by `selvedge dev`. Never uploaded.

use std::collections::BTreeMap;

use super::Problem;
use crate::limits::DEV_VARS_MAX;

/// Reads the lines of a `.dev.vars` file: `NAME=value`, an optional `export `, `#` comments, single quotes (as they stand), double
/// quotes (with `\n`, `\t`, `\"`, `\\`).
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, Problem> {
    let mut vars = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let at = || format!("line {}", index + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            return Err(Problem::value(at(), "expected NAME=value"));
        };
        let name = name.trim();
        if !is_name(name) {
            return Err(Problem::value(at(), format!("{name:?} is not a name; use letters, digits and '_'")));
        }
        let value = unquote(value.trim()).map_err(|message| Problem::value(at(), message))?;
        vars.insert(name.to_owned(), value);
        if vars.len() > DEV_VARS_MAX {
            return Err(Problem::value(at(), format!("more than {DEV_VARS_MAX} variables")));
        }
    }
    Ok(vars)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn unquote(value: &str) -> Result<String, String> {
    if let Some(rest) = value.strip_prefix('\'') {
        return match rest.split_once('\'') {
            Some((inner, after)) if is_comment(after) => Ok(inner.to_owned()),
            Some(_) => Err("text after the closing quote".to_owned()),
            None => Err("the quote is not closed".to_owned()),
        };
    }
    let Some(rest) = value.strip_prefix('"') else {
        let end = value.find(" #").unwrap_or(value.len());
        return Ok(value.get(..end).unwrap_or(value).trim_end().to_owned());
    };
    let mut out = String::new();
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' if is_comment(chars.as_str()) => return Ok(out),
            '"' => return Err("text after the closing quote".to_owned()),
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => break,
            },
            _ => out.push(c),
        }
    }
    Err("the quote is not closed".to_owned())
}

fn is_comment(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || text.starts_with('#')
}

//! `.dev.vars`: `NAME=value` lines, merged over `vars` by `selvedge dev`. Never uploaded, and never quoted in an error: it holds secrets.

use std::collections::BTreeMap;

use super::Problem;
use crate::limits::DEV_VARS_MAX;

/// Reads a `.dev.vars` file: `NAME=value` lines, an optional `export `, `#` comments, single quotes and backticks (as they stand), double quotes (with `\n`,
/// `\t`, `\"`, `\\`). What is quoted may go over several lines, as a PEM does.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, Problem> {
    let mut vars = BTreeMap::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let read = text.len() - rest.len();
        let at = || format!("line {}", text.bytes().take(read).filter(|byte| *byte == b'\n').count() + 1);
        let line = rest.lines().next().unwrap_or_default();
        if line.starts_with('#') {
            rest = rest.split_at_checked(line.len()).map_or("", |(_, after)| after).trim_start();
            continue;
        }
        let (name, value) = line.split_once('=').map_or((line, None), |(name, _)| (name, rest.get(name.len() + 1..)));
        let Some(value) = value else { return Err(Problem::value(at(), "expected NAME=value")) };
        let name = name.trim();
        let name = name.strip_prefix("export ").map_or(name, str::trim_start);
        if !is_name(name) {
            return Err(Problem::value(at(), "what is before the = is not a name; use letters, digits, '_', '.' and '-'"));
        }
        let (value, after) = value_of(value.trim_start_matches([' ', '\t'])).map_err(|message| Problem::value(at(), message))?;
        vars.insert(name.to_owned(), value);
        if vars.len() > DEV_VARS_MAX {
            return Err(Problem::value(at(), format!("more than {DEV_VARS_MAX} variables")));
        }
        rest = after.trim_start();
    }
    Ok(vars)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// The value at the beginning of a text, and the lines after it.
fn value_of(text: &str) -> Result<(String, &str), &'static str> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"' | '`'));
    let Some(quote) = quote else {
        let (line, after) = text.split_once('\n').unwrap_or((text, ""));
        let end = if line.starts_with('#') { 0 } else { line.find(" #").unwrap_or(line.len()) };
        return Ok((line.get(..end).unwrap_or(line).trim_end().to_owned(), after));
    };
    let mut value = String::new();
    let mut chars = text.chars();
    chars.next();
    while let Some(c) = chars.next() {
        if c == quote {
            let (line, after) = chars.as_str().split_once('\n').unwrap_or((chars.as_str(), ""));
            let line = line.trim();
            return if line.is_empty() || line.starts_with('#') { Ok((value, after)) } else { Err("text after the closing quote") };
        }
        let escaped = if c == '\\' && quote == '"' { chars.next() } else { None };
        value.push(match escaped {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some(other) => other,
            None => c,
        });
    }
    Err("the quote is not closed")
}

//! The paths of one host, arranged so that finding one costs a search, not a walk over all of them. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::pattern::glob;
use super::{Route, RouteError};

/// Patterns with a `*` that is not their last byte and the same text before it, such as `/*.jpg` and `/*.png`: each may be tried.
const GLOBS_PER_PREFIX_MAX: usize = 128;

/// Exact paths by hash; wildcard paths by the text before their first `*`, in a sorted list in which each knows the longest other one that
/// begins it.
#[derive(Debug, Default)]
pub(super) struct PathTable {
    exact: HashMap<Box<str>, Arc<Route>>,
    prefixes: Vec<Prefix>,
}

/// All patterns with one text before their first `*`.
#[derive(Debug)]
struct Prefix {
    text: Box<str>,
    /// The longest other prefix that this one begins with.
    parent: Option<usize>,
    /// Patterns that go on after their first `*`, most text first.
    globs: Vec<(Box<str>, Arc<Route>)>,
    /// The pattern that ends with its first `*`.
    all: Option<Arc<Route>>,
}

impl PathTable {
    /// Adds a route. [`Self::seal`] must follow before [`Self::find`].
    pub(super) fn add(&mut self, path: &str, route: Arc<Route>) -> Result<(), RouteError> {
        let Some((text, rest)) = path.split_once('*') else {
            return match self.exact.insert(path.into(), route.clone()) {
                Some(other) => Err(RouteError::Twice { pattern: route.pattern.clone(), other: other.pattern.clone() }),
                None => Ok(()),
            };
        };
        let at = self.prefixes.binary_search_by(|prefix| prefix.text.as_ref().cmp(text)).unwrap_or_else(|at| {
            self.prefixes.insert(at, Prefix { text: text.into(), parent: None, globs: Vec::new(), all: None });
            at
        });
        let Some(prefix) = self.prefixes.get_mut(at) else { return Ok(()) };
        let same = if rest.is_empty() {
            prefix.all.as_ref()
        } else {
            prefix.globs.iter().find(|(glob, _)| **glob == *path).map(|(_, route)| route)
        };
        if let Some(other) = same {
            return Err(RouteError::Twice { pattern: route.pattern.clone(), other: other.pattern.clone() });
        }
        if rest.is_empty() {
            prefix.all = Some(route);
        } else if prefix.globs.len() == GLOBS_PER_PREFIX_MAX {
            return Err(RouteError::TooAlike { pattern: route.pattern.clone(), max: GLOBS_PER_PREFIX_MAX });
        } else {
            prefix.globs.push((path.into(), route));
        }
        Ok(())
    }

    /// All of them.
    pub(super) fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.exact.values().chain(self.prefixes.iter().flat_map(|prefix| prefix.globs.iter().map(|(_, route)| route).chain(&prefix.all)))
    }

    /// Links and sorts what was added.
    pub(super) fn seal(&mut self) {
        let mut open: Vec<usize> = Vec::new();
        for at in 0..self.prefixes.len() {
            // In a sorted list the prefixes of a text come before it, and those that are still open nest.
            while let Some(&last) = open.last() {
                if self.prefixes[at].text.starts_with(self.prefixes[last].text.as_ref()) {
                    break;
                }
                open.pop();
            }
            self.prefixes[at].parent = open.last().copied();
            open.push(at);
            let literal = |glob: &str| glob.bytes().filter(|b| *b != b'*').count();
            self.prefixes[at].globs.sort_by(|(a, _), (b, _)| literal(b).cmp(&literal(a)).then_with(|| a.cmp(b)));
        }
    }

    /// The most specific route that matches.
    pub(super) fn find(&self, path: &str) -> Option<&Arc<Route>> {
        if let Some(route) = self.exact.get(path) {
            return Some(route);
        }
        // The longest prefix of the path is the last text that is not greater than it, or begins that one.
        let mut at = self.prefixes.partition_point(|prefix| prefix.text.as_ref() <= path).checked_sub(1);
        while let Some(prefix) = at.and_then(|at| self.prefixes.get(at)) {
            if path.starts_with(prefix.text.as_ref()) {
                let found = prefix.globs.iter().find(|(pattern, _)| glob(pattern, path)).map(|(_, route)| route);
                if let Some(route) = found.or(prefix.all.as_ref()) {
                    return Some(route);
                }
            }
            at = prefix.parent;
        }
        None
    }
}

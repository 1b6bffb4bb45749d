//! What a message's fields say, wherever they are kept: the rules of this folder ask for a few of them by name, of a map or of what is stored. Pure.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Fields that can be asked for by name.
pub trait Lines {
    /// The values of a field's lines, in their order.
    fn all<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]>;

    /// The value of a field's first line.
    fn first(&self, name: &HeaderName) -> Option<&[u8]>;

    /// Whether a field is there.
    fn has(&self, name: &HeaderName) -> bool {
        self.first(name).is_some()
    }
}

impl Lines for HeaderMap {
    fn all<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name).iter().map(HeaderValue::as_bytes)
    }

    fn first(&self, name: &HeaderName) -> Option<&[u8]> {
        self.get(name).map(HeaderValue::as_bytes)
    }
}

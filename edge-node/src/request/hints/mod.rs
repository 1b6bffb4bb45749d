//! `103 Early Hints` made from earlier answers (RFC 8297): while a client waits for an answer that has to be fetched or made, it learns what the last answer to the
//! same request told it to load. For routes with `early_hints`.
//!
//! Sent over h2 and h3 only: some h1 clients take an interim response for the final one (RFC 8297, section 3). Learnt from answers that are for everybody: what an
//! answer to one user links to is no business of the next. Kept in memory, bounded; a purge that reaches an answer reaches what was learnt from it.

mod link;

use std::collections::HashMap;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LINK, SET_COOKIE};
use http::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use selvedge_runtime::Body;

use super::RequestPath;
use super::compress::Asked;
use super::route::{self, Aim};
use super::trail::Trail;
use crate::cache::control::{self, Control};
use crate::cache::key::CacheKey;
use crate::cache::purge::Stamp;
use crate::cache::tags::Tags;
use crate::cache::vary::Vary;
use crate::limits::HINTS_MAX;
use crate::listen::Protocol;

/// Tells whether a browser is about to show the answer, or loads it for a page that is there already.
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// What earlier answers linked to.
#[derive(Debug, Default)]
pub(super) struct Hints(Mutex<Generations>);

/// Two halves: what was learnt or used lately, and what was before. When the young half is full it becomes the old one, and what was in that and not used
/// since is forgotten.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<CacheKey, Arc<Hint>>,
    old: HashMap<CacheKey, Arc<Hint>>,
}

/// What one answer linked to.
#[derive(Debug)]
struct Hint {
    stamp: Stamp,
    tags: Tags,
    links: Vec<HeaderValue>,
}

impl Generations {
    fn find(&mut self, key: &CacheKey) -> Option<Arc<Hint>> {
        if let Some(hint) = self.young.get(key) {
            return Some(hint.clone());
        }
        let hint = self.old.remove(key)?;
        self.keep(key.clone(), hint.clone());
        Some(hint)
    }

    fn keep(&mut self, key: CacheKey, hint: Arc<Hint>) {
        if self.young.len() >= HINTS_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, hint);
    }

    fn forget(&mut self, key: &CacheKey) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

/// Tells the client what the last answer to this request linked to, where there is something to tell and the client can be told.
pub(super) fn send(path: &RequestPath, asked: Asked<'_>) {
    let Asked { aim, headers, trail } = asked;
    let context = &trail.context;
    let listens = trail.is_clients() && context.protocol != Protocol::Http1 && context.method == Method::GET;
    if !aim.route.early_hints || !listens || headers.get(SEC_FETCH_MODE).is_some_and(|mode| mode != "navigate") {
        return;
    }
    let key = route::key(aim, context);
    let Some(hint) = path.hints().0.lock().find(&key) else { return };
    if !path.cache().purges().admits(hint.stamp, key.as_bytes(), Some(&hint.tags)) {
        path.hints().0.lock().forget(&key);
        return;
    }
    let fields: HeaderMap = hint.links.iter().map(|link| (LINK, link.clone())).collect();
    trail.interim.send(StatusCode::EARLY_HINTS, fields);
}

/// A request whose answer may teach something.
pub(super) struct Lesson {
    key: CacheKey,
    stamp: Stamp,
    own: link::Own,
}

impl Lesson {
    /// Before the answer is asked for: a purge meanwhile counts against it.
    pub(super) fn begin(path: &RequestPath, request: &Request<Body>, aim: &Aim, trail: &Trail) -> Option<Box<Self>> {
        let teaches = aim.route.early_hints && *request.method() == Method::GET && !request.headers().contains_key(AUTHORIZATION);
        teaches.then(|| {
            let (key, stamp) = (route::key(aim, &trail.context), path.cache().purges().stamp(aim.realm()));
            let own = link::Own { secure: trail.context.secure, authority: trail.context.authority.clone() };
            Box::new(Self { key, stamp, own })
        })
    }

    /// Learns, if the answer is a page for everybody. One without links makes forgotten what was learnt before.
    pub(super) fn learn(self, path: &RequestPath, response: &Response<Body>) {
        if response.status() != StatusCode::OK || !is_for_everybody(response.headers()) {
            return;
        }
        let links = link::worth_hinting(&self.own, response.headers());
        let mut hints = path.hints().0.lock();
        match links.is_empty() {
            true => hints.forget(&self.key),
            false => hints.keep(self.key, Arc::new(Hint { stamp: self.stamp, tags: Tags::of(response.headers()).without_texts(), links })),
        }
    }
}

fn is_for_everybody(headers: &HeaderMap) -> bool {
    // Whichever field says it: no client may have it that a cache may not.
    let hidden = |control: Control| control.private || control.no_store;
    let withheld = hidden(Control::of(headers)) || hidden(Control::of_response(headers)) || control::withheld(headers).contains(&LINK);
    let personal = |name: &HeaderName| matches!(name.as_str(), "cookie" | "authorization");
    let varies = match Vary::of(headers) {
        Vary::Nothing => false,
        Vary::On(names) => names.iter().any(personal),
        Vary::Anything => true,
    };
    !(withheld || headers.contains_key(SET_COOKIE) || varies)
}

pub(crate) use link::fuzz;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::Space;

    fn key(number: usize) -> CacheKey {
        CacheKey::new(Space::Upstream, "https", "a.org", &number.to_string())
    }

    fn hint() -> Arc<Hint> {
        Arc::new(Hint { stamp: Stamp::default(), tags: Tags::default(), links: Vec::new() })
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_used_stays() {
        let mut hints = Generations::default();
        for number in 0..HINTS_MAX * 3 {
            hints.keep(key(number), hint());
            assert!(hints.find(&key(0)).is_some(), "it is used all the time");
        }
        assert!(hints.young.len() + hints.old.len() <= HINTS_MAX);
        assert!(hints.find(&key(1)).is_none());
        hints.forget(&key(0));
        assert!(hints.find(&key(0)).is_none());
    }

    #[test]
    fn answers_to_one_user_teach_nothing() {
        let is = |name: &'static str, value: &'static str| {
            is_for_everybody(&[(HeaderName::from_static(name), HeaderValue::from_static(value))].into_iter().collect())
        };
        assert!(is("cache-control", "no-cache") && is("cache-control", "max-age=0") && is("vary", "accept-encoding") && is("x", "y"));
        for (name, value) in [
            ("cache-control", "private"),
            ("cache-control", "no-store"),
            ("cache-control", "max-age=60, private=\"link\""),
            ("cdn-cache-control", "private"),
            ("cdn-cache-control", "no-store"),
            ("surrogate-control", "no-store"),
            ("set-cookie", "a=b"),
            ("vary", "Cookie"),
            ("vary", "*"),
        ] {
            assert!(!is(name, value), "{name}: {value}");
        }
        let both = |cdn: &'static str| {
            let fields = [("cache-control", "private"), ("cdn-cache-control", cdn)];
            is_for_everybody(
                &fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).into_iter().collect(),
            )
        };
        assert!(!both("max-age=60"), "the page of one user that this cache may keep all the same");
    }
}

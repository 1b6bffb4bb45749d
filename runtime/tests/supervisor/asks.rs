//! What the runner without V8 asks of its host: subrequests, caches, purges; and more than it reads of the answers.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use selvedge_runtime::protocol::{
    BodyKind, CHUNK_BYTES_MAX, CacheCallHead, CacheHead, Fields, RequestHead, ResponseHead, StreamId, ToEdge,
};
use selvedge_runtime::{CachePurge, Outcome, Redirect};

use super::Thread;

/// Calls of one invocation: 3 MiB of answers.
const HOARDED: u32 = 48;
/// How long the thread is held by others each time, so to speak.
const HELD: Duration = Duration::from_millis(20);
/// Calls of one that is after the edge's memory, or whose worker takes each back at once.
const FLOOD: u32 = 200_000;
/// Calls that are written together.
const WRITTEN: u32 = 1000;

impl Thread {
    /// What it asks of its host.
    pub(super) fn call(&mut self, stream: StreamId, path: &str) {
        match path {
            "fetch" => self.fetch(stream, 1),
            "keep" => {
                self.keep(stream, 1, "kept");
                for piece in ["ke", "pt"] {
                    self.say(&ToEdge::BodyData { stream, part: 1, bytes: piece.into() });
                }
                self.say(&ToEdge::BodyEnd { stream, part: 1, error: None });
            }
            "cut" => {
                self.keep(stream, 1, "kept");
                self.say(&ToEdge::BodyEnd { stream, part: 1, error: Some("cut".to_owned()) });
            }
            "missing" => self.ask(stream, 1, CacheCallHead::Match, "missing"),
            "refused" => {
                self.refused.insert(stream);
                self.keep(stream, 1, "refuse");
            }
            "purge" => self.purge(stream, 1, "shop"),
            "pass" => {
                self.say(&ToEdge::PassThrough { stream });
                self.say(&ToEdge::Failed { stream, outcome: Outcome::Exception, message: "Error: no".to_owned() });
                self.done(stream, Outcome::Exception);
            }
            _ => {}
        }
    }

    pub(super) fn fetch(&mut self, stream: StreamId, part: u32) {
        self.fetch_with(stream, part, BodyKind::Whole("ask".into()));
    }

    pub(super) fn fetch_with(&mut self, stream: StreamId, part: u32, body: BodyKind) {
        let url = "https://upstream.example/thing".to_owned();
        let head = Box::new(RequestHead { method: Method::POST, url, headers: HeaderMap::new() });
        self.say(&ToEdge::Fetch { stream, part, head, redirect: Redirect::Follow, cache: None, body });
    }

    pub(super) fn ask(&mut self, stream: StreamId, part: u32, call: CacheCallHead, key: &str) {
        let url = format!("https://keys.example/{key}");
        self.say(&ToEdge::Cache { stream, part, ask: Box::new(CacheHead { name: None, url, headers: HeaderMap::new(), call }) });
    }

    pub(super) fn purge(&mut self, stream: StreamId, part: u32, tag: &str) {
        let purge = CachePurge { tags: vec![tag.to_owned()], path_prefixes: vec!["/a/".to_owned()], ..CachePurge::default() };
        self.say(&ToEdge::Purge { stream, part, purge: Box::new(purge) });
    }

    /// Puts what streams.
    pub(super) fn keep(&mut self, stream: StreamId, part: u32, key: &str) {
        let head = ResponseHead { status: StatusCode::OK, headers: HeaderMap::new() };
        self.ask(stream, part, CacheCallHead::Put(head, BodyKind::Stream(None)), key);
    }

    pub(super) fn hoard(&mut self, stream: StreamId, path: &str) -> bool {
        match path {
            "hoard" => {
                for part in 1..=HOARDED {
                    self.fetch_with(stream, part, BodyKind::Whole(vec![b'x'; CHUNK_BYTES_MAX].into()));
                }
                self.flush();
                self.hoards.insert(stream, (HOARDED, HOARDED));
                std::thread::sleep(HELD);
            }
            "flood" | "takes-back" => {
                for part in 1..=FLOOD {
                    self.fetch_with(stream, part, BodyKind::Empty);
                    if path == "takes-back" && part < FLOOD {
                        self.say(&ToEdge::Abandon { stream, part });
                    }
                    if part % WRITTEN == 0 {
                        self.flush();
                    }
                }
                if path == "flood" {
                    std::thread::sleep(Duration::from_secs(3600));
                }
                self.hoards.insert(stream, (1, FLOOD));
            }
            _ => return false,
        }
        true
    }

    /// An answer has come.
    pub(super) fn hoarded(&mut self, stream: StreamId, part: u32, result: Result<(Box<ResponseHead<Fields>>, BodyKind), String>) {
        let Some((left, last)) = self.hoards.get_mut(&stream) else { return };
        let whole = matches!(&result, Ok((_, BodyKind::Whole(bytes))) if bytes.len() == CHUNK_BYTES_MAX);
        if whole || part == *last {
            *left = left.saturating_sub(1);
        }
        if *left == 0 {
            self.hoards.remove(&stream);
            self.respond(stream, 200, result.map_or_else(|message| message.into(), |_| "all".into()));
            self.done(stream, Outcome::Ok);
        }
    }
}

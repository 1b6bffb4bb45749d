//! What the runner without V8 does that makes its edge hold much: it asks, and does not read.

use std::time::Duration;

use selvedge_runtime::Outcome;
use selvedge_runtime::protocol::{BodyKind, CHUNK_BYTES_MAX, Fields, ResponseHead, StreamId, ToEdge};

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

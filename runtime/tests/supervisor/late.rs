//! What the runner without V8 says late, or loses: behind a cancellation, behind the end of an invocation, outside of any.

use std::time::Duration;

use selvedge_runtime::protocol::{BodyKind, Fields, RequestHead, Slot, StreamId, ToEdge, monotonic_ns};
use selvedge_runtime::{LogLevel, Outcome};

use super::{Thread, once};

/// How long an invocation computes, within its limit.
const OCCUPIED: Duration = Duration::from_millis(11_500);

/// Fetches of an invocation that it aborts at once: as many as may run at one time.
const ABORTED: u32 = 64;

impl Thread {
    /// False where the path is none of these.
    pub(super) fn late(&mut self, stream: StreamId, slot: Slot, path: &str, head: &RequestHead<Fields>) -> bool {
        match path {
            "hold" => {
                self.area.turn_begins(monotonic_ns(), stream);
                self.at_cancel.insert(stream, path.to_owned());
            }
            "occupy" => {
                self.area.turn_begins(monotonic_ns(), stream);
                self.flush();
                std::thread::sleep(OCCUPIED);
                self.area.turn_ends();
                self.respond(stream, 200, "over".into());
                self.done(stream, Outcome::Ok);
            }
            "late-stream" | "slow-cancel" | "stay" | "stay-long" => _ = self.at_cancel.insert(stream, path.to_owned()),
            "lose-once" if once(head) => {
                self.say(&ToEdge::Failed { stream, outcome: Outcome::RunnerLost, message: "its isolate was dropped".to_owned() });
                self.done(stream, Outcome::RunnerLost);
                self.lose(slot, Outcome::ExceededWallTime);
            }
            "lose-once" => {
                self.respond(stream, 200, "survived".into());
                self.done(stream, Outcome::Ok);
            }
            // Hears all of the request's body; the first process dies of its end.
            "cut-once" => {
                self.dies_at_end = once(head);
                self.echoes.insert(stream, None);
            }
            "burn" => {
                self.respond(stream, 200, "burns".into());
                self.done(stream, Outcome::Ok);
                self.lose(slot, Outcome::ExceededCpu);
            }
            "works-40-ms" => {
                self.respond(stream, 200, "worked".into());
                self.say(&ToEdge::Done { stream, outcome: Outcome::Ok, cpu_us: 40_000, heap_bytes: 1 << 20 });
            }
            "abort-fetches" => {
                for part in 1..=ABORTED {
                    self.fetch_with(stream, part, BodyKind::Stream(None));
                    self.say(&ToEdge::Abandon { stream, part });
                }
                self.fetch(stream, ABORTED + 1);
            }
            _ => return false,
        }
        true
    }

    fn lose(&mut self, slot: Slot, outcome: Outcome) {
        self.workers.remove(&slot);
        self.say(&ToEdge::Gone { slot, outcome, message: String::new() });
    }

    /// An invocation was cancelled that is to say something yet.
    pub(super) fn cancelled(&mut self, stream: StreamId, path: &str, outcome: Outcome) {
        if path.starts_with("stay") {
            self.say(&ToEdge::Stays { stream });
            if path == "stay" {
                self.fetch(stream, 1);
            }
            return;
        }
        if path == "late-stream" {
            self.open(stream);
            self.say(&ToEdge::BodyData { stream, part: 0, bytes: "late".into() });
            self.say(&ToEdge::BodyEnd { stream, part: 0, error: None });
        } else {
            std::thread::sleep(Duration::from_millis(1800));
            self.area.turn_ends();
        }
        self.done(stream, outcome);
    }

    /// A version that logs while it loads.
    pub(super) fn chatter(&mut self, slot: Slot) {
        for line in 0..3000 {
            let message = format!("line {line}");
            self.say(&ToEdge::Log { stream: 0, slot, level: LogLevel::Log, message, exception: false, place: String::new() });
        }
    }
}

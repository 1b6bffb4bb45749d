//! What a thread does with each message of the edge.

use selvedge_runtime::Outcome;
use selvedge_runtime::protocol::{Slot, StreamId, ToEdge, ToRunner};

use super::JsThread;
use super::loads::LoadError;
use super::tenant::Start;
use crate::last_words::{Exit, end};
use crate::limits::ISOLATES_MAX;

impl JsThread {
    /// Attends to one message. True where it started an invocation.
    pub(super) fn dispatch(&mut self, message: ToRunner) -> bool {
        match message {
            ToRunner::LoadBegin { slot, head } => obey(match self.slots.contains_key(&slot) {
                true => Err(LoadError::SlotUsed(slot)),
                false => self.loads.begin(slot, *head),
            }),
            ToRunner::LoadModule { slot, specifier, kind, bytes_len, source_map_len } => {
                obey(self.loads.module(slot, specifier, kind, (bytes_len, source_map_len)))
            }
            ToRunner::LoadBytes { slot, bytes } => obey(self.loads.bytes(slot, &bytes)),
            ToRunner::LoadEnd { slot } => self.load(slot),
            ToRunner::Unload { slot } => self.unload(slot),
            ToRunner::Start { stream, slot, head, client, body } => {
                self.start(slot, Start { stream, head: *head, client, body });
                return true;
            }
            ToRunner::Cancel { stream, outcome } => self.cancel(stream, outcome),
            ToRunner::BodyData { stream, .. }
            | ToRunner::BodyEnd { stream, .. }
            | ToRunner::Credit { stream, .. }
            | ToRunner::Settled { stream, .. }
            | ToRunner::Purged { stream, .. }
            | ToRunner::Fetched { stream, .. } => self.deliver(stream, message),
        }
        false
    }

    fn load(&mut self, slot: Slot) {
        let (head, modules) = match self.loads.end(slot) {
            Ok(load) => load,
            Err(error) => return obey(Err(error)),
        };
        if self.tenants.len() >= ISOLATES_MAX {
            let message = format!("this thread has {ISOLATES_MAX} isolates already");
            return self.station.link.send(&ToEdge::Gone { slot, outcome: Outcome::LoadShed, message });
        }
        self.settle_in(slot, head, modules);
    }

    fn unload(&mut self, slot: Slot) {
        if self.loads.forget(slot) {
            return self.station.link.send(&ToEdge::Gone { slot, outcome: Outcome::Ok, message: String::new() });
        }
        // It may have gone a moment ago: the edge has been told.
        if let Some(key) = self.slots.get(&slot).copied() {
            self.drain(key);
        }
    }

    fn start(&mut self, slot: Slot, start: Start) {
        let stream = start.stream;
        let tenant = self.slots.get(&slot).and_then(|key| Some((*key, self.tenants.get_mut(*key)?)));
        let Some((key, tenant)) = tenant.filter(|(_, tenant)| !tenant.draining) else {
            if self.loads.contains(slot) {
                end(Exit::Protocol, "an invocation of a version that is incomplete");
            }
            return self.station.link.send(&ToEdge::Bounced { stream });
        };
        if !self.shared.open(stream, key, tenant.limits.cpu_ms) {
            end(Exit::Protocol, &format!("stream {stream} is running already"));
        }
        tenant.seat.live.set(tenant.seat.live.get() + 1);
        if tenant.seat.is_loading() {
            tenant.waiting.push_back(start);
        } else {
            self.begin(key, start);
        }
    }

    /// Gives a message to the isolate of its stream. Streams that have ended are no error: messages cross.
    fn deliver(&mut self, stream: StreamId, message: ToRunner) {
        let Some(account) = self.shared.account(stream) else { return };
        if let Some(tenant) = self.tenants.get_mut(account.tenant) {
            // One that waits for its version has no isolate yet that could keep it.
            if tenant.waiting.iter().any(|start| start.stream == stream) {
                tenant.waiting_messages.push_back(message);
            } else {
                self.enter(account.tenant, |isolate| isolate.deliver(message));
            }
        }
    }

    fn cancel(&mut self, stream: StreamId, outcome: Outcome) {
        let Some(account) = self.shared.account(stream) else { return };
        if let Some(tenant) = self.tenants.get_mut(account.tenant)
            && let Some(place) = tenant.waiting.iter().position(|start| start.stream == stream)
        {
            tenant.waiting.remove(place);
            self.shared.finished.borrow_mut().push_back((stream, outcome));
            return self.report_finished(account.tenant);
        }
        self.enter(account.tenant, |isolate| isolate.deliver(ToRunner::Cancel { stream, outcome }));
    }
}

/// An edge that announces one thing and sends another is not ours.
fn obey(result: Result<(), LoadError>) {
    if let Err(error) = result {
        end(Exit::Protocol, &error.to_string());
    }
}

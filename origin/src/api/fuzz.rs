//! For tests/fuzz: any bytes as what a caller of the API sends.

use std::sync::OnceLock;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request};

use super::auth::{Caller, claim};
use super::body::parameter;
use super::reply::ApiError;
use super::wire::{Deletion, NewDeployment, NewPurge, NewVersion, NodeJoin, NodeReport, Rollback, SiteApply, WorkerPurge};
use super::{Asked, Endpoint, nodes};
use crate::bundle::sign_version;
use crate::keys::SigningKey;
use crate::registry::{self, Change, Digest, Fleet, Moment, NodeName, Plan, Refusal, Sealed, Share, State, VersionId, WorkerName};

/// The id of the version that is there, which inputs may name.
const VERSION: &str = "0190b8a0-0000-7000-8000-000000000000";

/// A registry with a worker and a node.
struct Fixed {
    key: SigningKey,
    worker: WorkerName,
    node: NodeName,
    state: State,
}

fn fixed() -> Option<&'static Fixed> {
    static FIXED: OnceLock<Option<Fixed>> = OnceLock::new();
    FIXED.get_or_init(Fixed::new).as_ref()
}

impl Fixed {
    fn new() -> Option<Self> {
        let key = SigningKey::generate().ok()?;
        let (worker, node): (WorkerName, NodeName) = ("shop".parse().ok()?, "n".parse().ok()?);
        let mut fixed = Self { key, worker, node, state: State::default() };
        let new = |text: &str| serde_json::from_str::<NewVersion>(text).ok();
        let new = new(&format!(r#"{{"bundle":"{}","compatibility_date":"2026-01-01"}}"#, Digest::zero()))?;
        // The second takes the traffic: there is one to go back to.
        for id in [VERSION.parse().ok()?, VersionId::generate()] {
            let version = fixed.version(&new, id).ok()?;
            let versions = vec![Share { version: version.answer.id.clone(), percentage: 100.0 }];
            fixed.apply(version.changes);
            let deployment = NewDeployment { versions, routes: None, take_over: false, message: None, request_id: None };
            let promoted = registry::promote(&fixed.state, &moment(), &fixed.worker, &deployment).ok()?;
            fixed.apply(promoted.changes);
        }
        let (node, key) = (fixed.node.clone(), fixed.key.public());
        fixed.apply(vec![Change::NodeJoined { node, region: String::new(), address: None, peer: None, key }]);
        Some(fixed)
    }

    fn apply(&mut self, changes: Vec<Change>) {
        changes.iter().for_each(|change| self.state.apply(1, change));
    }

    fn version(&self, new: &NewVersion, id: VersionId) -> Result<Plan<registry::VersionRecord>, Refusal> {
        let moment = Moment { id, ..moment() };
        let sealed = Sealed { signature: sign_version(&self.key, &self.worker, &moment.id, &new.bundle) };
        registry::create_version(&self.state, &moment, &self.worker, new, &sealed)
    }

    /// What the rule for a body decides, or why it is refused.
    fn decide(&self, which: u8, asked: &Asked) -> Result<Vec<Change>, ApiError> {
        let (state, worker, moment) = (&self.state, &self.worker, &moment());
        Ok(match which % 9 {
            0 => self.version(&asked.json::<NewVersion>()?, VersionId::generate())?.changes,
            1 => registry::promote(state, moment, worker, &asked.json::<NewDeployment>()?)?.changes,
            2 => registry::rollback(state, moment, worker, &asked.json::<Rollback>()?)?.changes,
            3 => registry::delete(state, worker, &asked.json::<Deletion>()?)?.changes,
            4 => registry::apply_site(state, &self.node, &asked.json::<SiteApply>()?)?.changes,
            5 => registry::purge(&asked.json::<NewPurge>()?)?.changes,
            6 => registry::purge_of_worker(state, &asked.json::<WorkerPurge>()?)?.changes,
            7 => registry::join(state, &asked.json::<NodeJoin>()?)?.changes,
            _ => {
                let report: NodeReport = asked.json()?;
                nodes::check(&report)?;
                let moved = registry::moved(state, &self.node, &report.region, report.peer.as_deref())?;
                let mut fleet = Fleet::expecting([&self.node], 1);
                fleet.reported(state, &self.node, report, 2);
                let (_, _) = (fleet.nodes(state, 3), fleet.worker_nodes(state, worker, 3));
                moved.changes
            }
        })
    }
}

fn moment() -> Moment {
    Moment { now_ms: 1, id: VersionId::generate() }
}

/// The first byte says which body the rest is. What a rule accepts reads as it was written, in the log, in the records and in a node's snapshot.
/// Why it is refused, otherwise.
pub fn bodies(bytes: &[u8]) -> Result<(), String> {
    let (Some(fixed), Some((which, body))) = (fixed(), bytes.split_first()) else { return Err("nothing to read".to_owned()) };
    let asked = Asked { head: Request::new(()).into_parts().0, body: Bytes::copy_from_slice(body), caller: Caller::Admin };
    let changes = fixed.decide(*which, &asked).map_err(|error| error.to_string())?;
    let mut state = fixed.state.clone();
    for change in &changes {
        state.apply(2, change);
        let text = serde_json::to_vec(change).unwrap_or_default();
        assert_eq!(serde_json::from_slice::<Change>(&text).ok().as_ref(), Some(change), "not read as written: {}", text.escape_ascii());
    }
    let desired = serde_json::to_vec(state.desired()).unwrap_or_default();
    assert_eq!(serde_json::from_slice(&desired).ok().as_ref(), Some(state.desired()), "not read as written: {}", desired.escape_ascii());
    Ok(())
}

/// The first line is a method and a target, the second what proves who calls.
pub fn heads(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let (first, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut words = first.splitn(2, |byte| *byte == b' ');
    let method = Method::from_bytes(words.next().unwrap_or_default()).unwrap_or_default();
    if let Ok(request) = Request::builder().method(method).uri(words.next().unwrap_or_default()).body(()) {
        let (head, ()) = request.into_parts();
        let _ = Endpoint::find(&head.method, head.uri.path());
        queries(head);
    }
    if let Ok(text) = std::str::from_utf8(second) {
        let _ = claim(text);
    }
}

fn queries(head: Parts) {
    let asked = Asked { head, body: Bytes::new(), caller: Caller::Anyone };
    if let Ok([seq, wait_ms, seen]) = asked.query(["seq", "wait_ms", "seen"]) {
        let _ = (parameter::<u64>("seq", seq), parameter::<u64>("wait_ms", wait_ms), parameter::<Digest>("seen", seen));
    }
}

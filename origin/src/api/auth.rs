//! Who calls: a command with the admin token, a joining node with the node token, or a node that signs its requests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use http::request::Parts;
use http::{Method, header};
use parking_lot::Mutex;
use ring::hmac;

use super::reply::ApiError;
use crate::client::request_message;
use crate::keys::{BadKey, PublicKey, Purpose, Signature};
use crate::ledger::Ledger;
use crate::limits::NODE_CLOCK_SKEW;
use crate::registry::{NodeName, Refusal};
use crate::tokens::Token;

/// Requests of one node that are remembered, so that none is played twice. What is older than they are is refused, however little the clocks are apart.
const SEEN_PER_NODE_MAX: usize = 4_096;

/// Who may use an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Anybody.
    Public,
    /// The admin token.
    Admin,
    /// The node token.
    Join,
    /// A node that has joined.
    Node,
    /// A node that has joined, or the admin token.
    NodeOrAdmin,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// Not known, where that does not matter.
    Anyone,
    /// A command.
    Admin,
    /// A node that joins.
    Joining,
    /// A node that has joined.
    Node(NodeName),
}

/// What the head of a request proves, before its body is read.
pub(super) enum Admitted {
    /// All.
    Known(Caller),
    /// A node's name; its signature covers the body.
    Signed(Claim),
}

/// A node's signature of a request.
pub(super) struct Claim {
    node: NodeName,
    key: PublicKey,
    at_us: u64,
    signature: Signature,
}

/// Requests of one node that changed something, by their times.
#[derive(Debug, Default)]
struct Seen {
    at_us: BTreeSet<u64>,
    /// What is not later than this is remembered no more, and refused.
    forgotten_us: u64,
}

impl Seen {
    /// Whether a request is none that was made before.
    fn is_new(&mut self, at_us: u64) -> bool {
        if at_us <= self.forgotten_us || !self.at_us.insert(at_us) {
            return false;
        }
        while self.at_us.len() > SEEN_PER_NODE_MAX
            && let Some(oldest) = self.at_us.pop_first()
        {
            self.forgotten_us = oldest;
        }
        true
    }
}

/// Checks tokens and signatures.
pub(super) struct Auth {
    /// Random: tokens are compared by their tags, so that the time of a comparison says nothing about them.
    key: hmac::Key,
    admin: hmac::Tag,
    node: hmac::Tag,
    seen: Mutex<BTreeMap<NodeName, Seen>>,
}

impl Auth {
    /// Knows these two tokens.
    pub(super) fn new(admin: &Token, node: &Token) -> Result<Self, BadKey> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new()).map_err(|_| BadKey::NoRandom)?;
        let tag = |token: &Token| hmac::sign(&key, token.secret().as_bytes());
        Ok(Self { admin: tag(admin), node: tag(node), seen: Mutex::new(BTreeMap::new()), key })
    }

    /// Checks a request's head.
    pub(super) fn admit(&self, ledger: &Ledger, access: Access, head: &Parts) -> Result<Admitted, ApiError> {
        if access == Access::Public {
            return Ok(Admitted::Known(Caller::Anyone));
        }
        let mut fields = head.headers.get_all(header::AUTHORIZATION).iter();
        let field = fields.next().ok_or_else(|| ApiError::Unauthorized("this needs a token".to_owned()))?;
        let text = field.to_str().ok().filter(|_| fields.next().is_none());
        let (scheme, rest) = text.and_then(|text| text.split_once(' ')).ok_or_else(unreadable)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            self.bearer(access, rest.trim()).map(Admitted::Known)
        } else if scheme.eq_ignore_ascii_case("selvedge-node") {
            if !matches!(access, Access::Node | Access::NodeOrAdmin) {
                return Err(ApiError::Forbidden("nodes may not do this".to_owned()));
            }
            claim(ledger, rest).map(Admitted::Signed)
        } else {
            Err(unreadable())
        }
    }

    fn bearer(&self, access: Access, token: &str) -> Result<Caller, ApiError> {
        let is = |tag: &hmac::Tag| hmac::verify(&self.key, token.as_bytes(), tag.as_ref()).is_ok();
        match (is(&self.admin), is(&self.node)) {
            (true, _) if matches!(access, Access::Admin | Access::NodeOrAdmin) => Ok(Caller::Admin),
            (_, true) if access == Access::Join => Ok(Caller::Joining),
            (true, _) => Err(ApiError::Forbidden("the admin token is not for this".to_owned())),
            (_, true) => Err(ApiError::Forbidden("the node token is good for joining only".to_owned())),
            (false, false) => Err(ApiError::Unauthorized("the token is not known here".to_owned())),
        }
    }

    /// Checks a node's signature over the whole request. One that changes something holds once.
    pub(super) fn signed(&self, ledger: &Ledger, claim: Claim, head: &Parts, body: &[u8]) -> Result<Caller, ApiError> {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let message = request_message(head.method.as_str(), path, body, claim.at_us);
        if !claim.key.verifies(Purpose::NodeRequest, message.as_bytes(), &claim.signature) {
            return Err(ApiError::Unauthorized(format!("the signature is not that of node {}", claim.node)));
        }
        if head.method != Method::GET {
            let mut seen = self.seen.lock();
            if !seen.entry(claim.node.clone()).or_default().is_new(claim.at_us) {
                return Err(ApiError::Unauthorized("this request was made before, or one much later was".to_owned()));
            }
            ledger.read(|state, _| {
                // Nodes that were removed.
                if seen.len() > state.nodes().len() {
                    seen.retain(|node, _| state.nodes().contains_key(node));
                }
            });
        }
        Ok(Caller::Node(claim.node))
    }
}

fn unreadable() -> ApiError {
    ApiError::Unauthorized("the Authorization field cannot be read".to_owned())
}

/// `node="..", ts="..", sig=".."`.
fn claim(ledger: &Ledger, text: &str) -> Result<Claim, ApiError> {
    let mut parts: BTreeMap<&str, &str> = BTreeMap::new();
    for part in text.split(',') {
        let (name, value) = part.trim().split_once('=').ok_or_else(unreadable)?;
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).ok_or_else(unreadable)?;
        if parts.insert(name, value).is_some() {
            return Err(unreadable());
        }
    }
    let part = |name: &str| parts.get(name).copied().ok_or_else(unreadable);
    let node: NodeName = part("node")?.parse().map_err(|_| unreadable())?;
    let at_us: u64 = part("ts")?.parse().map_err(|_| unreadable())?;
    let signature: Signature = part("sig")?.parse().map_err(|_| unreadable())?;
    let key = ledger.read(|state, _| match state.nodes().get(&node) {
        Some(record) => Ok(record.key),
        None if state.was_removed(&node) => Err(ApiError::from(Refusal::NodeRevoked { node: node.clone() })),
        None => Err(ApiError::Unauthorized(format!("node {node} has not joined here"))),
    })?;
    // Two machines' clocks are compared here, so this is the system's clock.
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    let apart_us = now_us.abs_diff(u128::from(at_us));
    if apart_us > NODE_CLOCK_SKEW.as_micros() {
        let seconds = apart_us / 1_000_000;
        return Err(ApiError::Unauthorized(format!("the clocks of node {node} and of the registry are {seconds} s apart")));
    }
    Ok(Claim { node, key, at_us, signature })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_request_is_taken_twice_however_many_came_between() {
        let mut seen = Seen::default();
        let times = 1..=2 * SEEN_PER_NODE_MAX as u64;
        assert!(times.clone().all(|at_us| seen.is_new(at_us)));
        assert!(times.clone().all(|at_us| !seen.is_new(at_us)));
        assert_eq!(seen.at_us.len(), SEEN_PER_NODE_MAX);
        assert!(seen.is_new(times.end() + 2) && seen.is_new(times.end() + 1), "in any order");
    }
}

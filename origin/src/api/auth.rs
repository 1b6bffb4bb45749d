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
use crate::registry::{Digest, NodeName, Refusal};
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
    /// A node that has joined, with the key that it has shown.
    Node(NodeName, PublicKey),
}

/// What the head of a request proves, before its body is read.
pub(super) struct Admitted {
    /// Who calls.
    pub(super) caller: Caller,
    /// The body that a node signed.
    body: Option<Digest>,
}

impl Admitted {
    /// Who calls with this body.
    pub(super) fn with(self, body: &[u8]) -> Result<Caller, ApiError> {
        if self.body.is_some_and(|signed| signed != Digest::of(body)) {
            return Err(ApiError::Unauthorized("the body is not the one that was signed".to_owned()));
        }
        Ok(self.caller)
    }
}

/// A node's signature of a request.
pub(super) struct Claim {
    node: NodeName,
    key: PublicKey,
    at_us: u64,
    body: Digest,
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
            return Ok(Admitted { caller: Caller::Anyone, body: None });
        }
        let mut fields = head.headers.get_all(header::AUTHORIZATION).iter();
        let field = fields.next().ok_or_else(|| ApiError::Unauthorized("this needs a token".to_owned()))?;
        let text = field.to_str().ok().filter(|_| fields.next().is_none());
        let (scheme, rest) = text.and_then(|text| text.split_once(' ')).ok_or_else(unreadable)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            self.bearer(access, rest.trim()).map(|caller| Admitted { caller, body: None })
        } else if scheme.eq_ignore_ascii_case("selvedge-node") {
            if !matches!(access, Access::Node | Access::NodeOrAdmin) {
                return Err(ApiError::Forbidden("nodes may not do this".to_owned()));
            }
            self.signed(ledger, claim(rest)?, head)
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

    /// Checks a node's signature. One of a request that changes something holds once. Who holds no key of a node learns nothing of nodes.
    fn signed(&self, ledger: &Ledger, claim: Claim, head: &Parts) -> Result<Admitted, ApiError> {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let message = request_message(head.method.as_str(), path, &claim.body, claim.at_us);
        if !claim.key.verifies(Purpose::NodeRequest, message.as_bytes(), &claim.signature) {
            return Err(ApiError::Unauthorized("the signature does not belong to this request".to_owned()));
        }
        ledger.read(|state, _| match state.nodes().get(&claim.node) {
            Some(record) if record.key == claim.key => Ok(()),
            _ if state.is_revoked(&claim.key) => Err(ApiError::from(Refusal::NodeRevoked { node: claim.node.clone() })),
            _ => Err(ApiError::Unauthorized("no node has joined here with this name and key".to_owned())),
        })?;
        // Two machines' clocks are compared here, so this is the system's clock.
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        let apart_us = now_us.abs_diff(u128::from(claim.at_us));
        if apart_us > NODE_CLOCK_SKEW.as_micros() {
            let (node, seconds) = (claim.node, apart_us / 1_000_000);
            return Err(ApiError::Unauthorized(format!("the clocks of node {node} and of the registry are {seconds} s apart")));
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
        Ok(Admitted { caller: Caller::Node(claim.node, claim.key), body: Some(claim.body) })
    }
}

fn unreadable() -> ApiError {
    ApiError::Unauthorized("the Authorization field cannot be read".to_owned())
}

/// `node="..", key="..", ts="..", body="..", sig=".."`.
pub(super) fn claim(text: &str) -> Result<Claim, ApiError> {
    let mut parts: BTreeMap<&str, &str> = BTreeMap::new();
    for part in text.split(',') {
        let (name, value) = part.trim().split_once('=').ok_or_else(unreadable)?;
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).ok_or_else(unreadable)?;
        if parts.insert(name, value).is_some() {
            return Err(unreadable());
        }
    }
    let part = |name: &str| parts.get(name).copied().ok_or_else(unreadable);
    Ok(Claim {
        node: part("node")?.parse().map_err(|_| unreadable())?,
        key: part("key")?.parse().map_err(|_| unreadable())?,
        at_us: part("ts")?.parse().map_err(|_| unreadable())?,
        body: part("body")?.parse().map_err(|_| unreadable())?,
        signature: part("sig")?.parse().map_err(|_| unreadable())?,
    })
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

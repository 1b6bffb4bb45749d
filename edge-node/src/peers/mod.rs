//! Other nodes of this one's region, and how one asks another: so that an upstream sees one fetch for a region ([`choose`]: which node is a key's shield).
//!
//! Who they are comes from the registry's signed feed and from nowhere else. Each side of a connection proves that it holds the key of its record, in TLS 1.3 with
//! raw public keys ([`tls`]); a node that the registry removes is not answered any more. One connection to each, made when it is first needed ([`link`]).

mod choose;
mod link;
mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls_pki_types::CertificateDer;
use selvedge_origin::client::NodeIdentity;
use selvedge_origin::feed::Position;
use selvedge_origin::keys::PublicKey;
use selvedge_origin::registry::{NodeName, PeerRecord};

pub use link::{AskError, Peer};
use tls::Proof;
#[cfg(test)]
pub(crate) use tls::client_of;

/// All nodes that this one knows, and who it is itself. Built once by `node.rs`; shared.
#[derive(Debug, Default)]
pub struct Peers {
    region: Box<str>,
    itself: ArcSwapOption<Itself>,
    table: ArcSwap<Table>,
    /// The last entry of the registry's log that this node has heard of, and the last one whose purges hold here.
    heard: ArcSwapOption<Position>,
    applied: ArcSwapOption<Position>,
}

#[derive(Debug)]
struct Itself {
    name: NodeName,
    score: u64,
    proof: Proof,
}

/// Immutable, swapped whole.
#[derive(Debug, Default)]
struct Table {
    /// Every node of every region, by key: those that may ask.
    names: HashMap<PublicKey, NodeName>,
    /// Those of this region, but for the node itself, by name: those that are asked.
    near: Vec<Arc<Peer>>,
}

impl Peers {
    /// Nobody is known yet.
    pub fn new(region: &str) -> Self {
        Self { region: region.into(), ..Self::default() }
    }

    /// Who this node is. Without it, it neither asks nor answers.
    pub(crate) fn joined(&self, identity: &NodeIdentity) {
        let name = identity.name().clone();
        match Proof::new(identity.key()) {
            Ok(proof) => {
                let score = choose::node(name.as_str());
                self.itself.store(Some(Arc::new(Itself { name, score, proof })));
            }
            Err(error) => tracing::error!(%error, "this node's key makes no TLS key: it has no peers"),
        }
    }

    /// What the registry says of all nodes. Connections to those that stay as they were stay open.
    pub(crate) fn update(&self, records: &std::collections::BTreeMap<NodeName, PeerRecord>) {
        let before = self.table.load();
        let itself = self.itself.load();
        let own = itself.as_ref().map(|itself| &itself.name);
        let near = records.iter().filter(|(name, record)| *record.region == *self.region && Some(*name) != own);
        let near = near.filter_map(|(name, record)| {
            // The registry has checked it; a newer one may allow more than this node knows.
            let address: SocketAddr = record.address.parse().ok()?;
            let same = before.near.binary_search_by(|peer| peer.name.cmp(name)).ok().and_then(|at| before.near.get(at));
            let same = same.filter(|peer| peer.is(name, address, &record.key));
            Some(same.cloned().unwrap_or_else(|| Arc::new(Peer::new(name.clone(), address, record.key))))
        });
        let near = near.collect();
        let names = records.iter().map(|(name, record)| (record.key, name.clone())).collect();
        self.table.store(Arc::new(Table { names, near }));
    }

    /// An entry of the registry's log is here. Said before its purges are applied: what is fetched after them is never asked of a node that lacks them.
    pub(crate) fn hears(&self, position: &Position) {
        self.heard.store(Some(Arc::new(position.clone())));
    }

    /// The purges of the registry's log hold here up to this entry. Said after they are applied.
    pub(crate) fn applied(&self, position: &Position) {
        self.applied.store(Some(Arc::new(position.clone())));
    }

    /// What a node has to have applied to be asked.
    pub(crate) fn asks_at(&self) -> Option<Arc<Position>> {
        self.heard.load_full()
    }

    /// Up to which entry of the registry's log purges hold here.
    pub(crate) fn answers_at(&self) -> Option<Arc<Position>> {
        self.applied.load_full()
    }

    /// The node that is asked for a cache key: the same one on every node of the region that can reach it. None: this node itself.
    pub(crate) fn shield(&self, key: &[u8]) -> Option<Arc<Peer>> {
        let table = self.table.load();
        if table.near.is_empty() {
            return None;
        }
        let itself = self.itself.load();
        let own = itself.as_ref()?.score;
        let key = choose::key(key);
        let best = choose::best(key, table.near.iter().filter(|peer| peer.is_usable()), |peer| peer.score)?;
        (choose::rank(key, best.score) > choose::rank(key, own)).then(|| best.clone())
    }

    /// Asks a peer, and waits so long for its answer to begin, and for each next piece. Dropping the future, or the response's body before its end, cancels the work.
    pub(crate) async fn ask(
        &self,
        peer: &Arc<Peer>,
        request: http::Request<()>,
        patience: Duration,
    ) -> Result<http::Response<selvedge_runtime::Body>, AskError> {
        let itself = self.itself.load_full();
        let itself = itself.ok_or(AskError::NotJoined)?;
        peer.ask(&itself.proof, request, patience).await
    }

    /// The node with this key, if the registry knows it.
    pub(crate) fn named(&self, key: &PublicKey) -> Option<NodeName> {
        self.table.load().names.get(key).cloned()
    }

    /// TLS for the listener that other nodes ask.
    pub(crate) fn server_config(self: &Arc<Self>) -> Result<rustls::ServerConfig, rustls::Error> {
        tls::server(self.clone())
    }
}

/// The key that a node has proved to hold, from what its TLS session shows.
pub(crate) fn proven_key(certificates: Option<&[CertificateDer<'_>]>) -> Option<PublicKey> {
    certificates?.first().and_then(|raw| tls::key_of(raw))
}

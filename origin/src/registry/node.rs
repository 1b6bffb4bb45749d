//! The rules for nodes: a name belongs to one key, and a revoked key does not come back.

use std::net::SocketAddr;

use super::version::bad;
use super::{Change, NodeName, NodeRecord, Plan, Refusal, State};
use crate::api::wire::NodeJoin;
use crate::limits::{NODE_TEXT_BYTES_MAX, NODES_MAX};

/// A node joins. The caller has checked that it holds the key. Joining again with the same key changes region and address at most.
pub fn join(state: &State, join: &NodeJoin) -> Result<Plan<()>, Refusal> {
    check(&join.region, join.address.as_deref(), None)?;
    if state.is_revoked(&join.key) {
        return Err(Refusal::NodeRevoked { node: join.name.clone() });
    }
    let known = state.nodes().get(&join.name);
    if known.is_some_and(|known| known.key != join.key) {
        return Err(Refusal::NodeNameTaken { node: join.name.clone() });
    }
    if let Some((node, _)) = state.nodes().iter().find(|(node, record)| record.key == join.key && **node != join.name) {
        return Err(Refusal::NodeKeyTaken { node: node.clone() });
    }
    if known.is_none() && state.nodes().len() >= NODES_MAX {
        return Err(Refusal::Limit { what: "nodes".to_owned(), max: NODES_MAX });
    }
    let record = NodeRecord {
        region: join.region.clone(),
        address: join.address.clone(),
        peer: known.and_then(|known| known.peer.clone()),
        key: join.key,
    };
    Ok(plan(known, &join.name, record))
}

/// A node that has joined says where it stands and where others reach it: elsewhere after a restart, perhaps.
pub fn moved(state: &State, node: &NodeName, region: &str, peer: Option<&str>) -> Result<Plan<()>, Refusal> {
    check(region, None, peer)?;
    let known = state.nodes().get(node).ok_or_else(|| Refusal::NoNode { node: node.clone() })?;
    let record = NodeRecord { region: region.to_owned(), peer: peer.map(str::to_owned), ..known.clone() };
    Ok(plan(Some(known), node, record))
}

fn check(region: &str, address: Option<&str>, peer: Option<&str>) -> Result<(), Refusal> {
    for (what, text) in [("region", Some(region)), ("address", address)] {
        if text.is_some_and(|text| text.len() > NODE_TEXT_BYTES_MAX || text.chars().any(char::is_control)) {
            return Err(bad(what, format!("at most {NODE_TEXT_BYTES_MAX} bytes, no control characters")));
        }
    }
    match peer.map(str::parse::<SocketAddr>) {
        Some(Ok(address)) if address.ip().is_unspecified() || address.port() == 0 => {
            Err(bad("peer", "an address that other nodes can reach"))
        }
        Some(Err(_)) => Err(bad("peer", "must be IP:PORT")),
        _ => Ok(()),
    }
}

fn plan(known: Option<&NodeRecord>, node: &NodeName, record: NodeRecord) -> Plan<()> {
    let same = known == Some(&record);
    let NodeRecord { region, address, peer, key } = record;
    let change = Change::NodeJoined { node: node.clone(), region, address, peer, key };
    Plan { changes: if same { vec![] } else { vec![change] }, before: vec![], answer: () }
}

/// Revokes a node's key.
pub fn remove(state: &State, node: &NodeName) -> Result<Plan<()>, Refusal> {
    if !state.nodes().contains_key(node) {
        return Err(Refusal::NoNode { node: node.clone() });
    }
    Ok(Plan { changes: vec![Change::NodeRemoved { node: node.clone() }], before: vec![], answer: () })
}

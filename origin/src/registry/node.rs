//! The rules for nodes: a name belongs to one key, and a revoked key never comes back.

use super::version::bad;
use super::{Change, NodeName, Plan, Refusal, State};
use crate::api::wire::NodeJoin;
use crate::limits::{NODE_TEXT_BYTES_MAX, NODES_MAX, REVOKED_KEYS_MAX};

/// A node joins. The caller has checked that it holds the key. Joining again with the same key changes region and address at most.
pub fn join(state: &State, join: &NodeJoin) -> Result<Plan<()>, Refusal> {
    for (what, text) in [("region", Some(&join.region)), ("address", join.address.as_ref())] {
        if text.is_some_and(|text| text.len() > NODE_TEXT_BYTES_MAX || text.chars().any(char::is_control)) {
            return Err(bad(what, format!("at most {NODE_TEXT_BYTES_MAX} bytes, no control characters")));
        }
    }
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
    let same = known.is_some_and(|known| known.region == join.region && known.address == join.address);
    let change = Change::NodeJoined { node: join.name.clone(), region: join.region.clone(), address: join.address.clone(), key: join.key };
    Ok(Plan { changes: if same { vec![] } else { vec![change] }, before: vec![], answer: () })
}

/// Revokes a node's key.
pub fn remove(state: &State, node: &NodeName) -> Result<Plan<()>, Refusal> {
    if !state.nodes().contains_key(node) {
        return Err(Refusal::NoNode { node: node.clone() });
    }
    if state.revoked_len() >= REVOKED_KEYS_MAX {
        return Err(Refusal::Limit { what: "revoked keys".to_owned(), max: REVOKED_KEYS_MAX });
    }
    Ok(Plan { changes: vec![Change::NodeRemoved { node: node.clone() }], before: vec![], answer: () })
}

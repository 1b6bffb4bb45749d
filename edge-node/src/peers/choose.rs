//! Which node of a region is a key's shield: rendezvous hashing, so that all nodes agree without talking, and a node that comes or goes moves only its own share of the
//! keys. Pure.

use ring::digest::{SHA256, digest};

/// A node's part of every rank.
pub(super) fn node(name: &str) -> u64 {
    first_bytes(name.as_bytes())
}

/// A key's part of every rank.
pub(super) fn key(key: &[u8]) -> u64 {
    first_bytes(key)
}

/// A node's rank for a key: the greatest wins. Two different mixtures, or nodes whose hashes differ in one bit would follow one another.
pub(super) fn rank(key: u64, node: u64) -> u64 {
    // The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
    let mut mixed = key ^ node.rotate_left(32);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The best of several.
pub(super) fn best<'a, T>(key: u64, of: impl Iterator<Item = &'a T>, score: impl Fn(&T) -> u64) -> Option<&'a T> {
    of.max_by_key(|one| rank(key, score(one)))
}

fn first_bytes(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(digest(&SHA256, bytes).as_ref().first_chunk().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(nodes: &[u64]) -> Vec<usize> {
        let mut shares = vec![0; nodes.len()];
        for number in 0..10_000u32 {
            let key = key(&number.to_be_bytes());
            let best = best(key, nodes.iter(), |node| *node).expect("a node");
            shares[nodes.iter().position(|node| node == best).expect("one of them")] += 1;
        }
        shares
    }

    #[test]
    fn every_node_has_its_share_and_only_the_share_of_one_that_goes_moves() {
        let nodes: Vec<u64> = (0..8).map(|number| node(&format!("edge-{number}"))).collect();
        let all = shares(&nodes);
        assert!(all.iter().all(|share| (1_100..1_400).contains(share)), "{all:?}");
        let fewer = &nodes[..7];
        for number in 0..10_000u32 {
            let key = key(&number.to_be_bytes());
            let (before, after) = (best(key, nodes.iter(), |node| *node), best(key, fewer.iter(), |node| *node));
            assert!(before == after || before == nodes.last(), "key {number} moves between nodes that stay");
        }
    }
}

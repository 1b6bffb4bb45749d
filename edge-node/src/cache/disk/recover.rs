//! What a node finds on disk when it starts: the segments of earlier runs. Their heads say at once what they are; their lists are read while the node serves already.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::Shared;
use super::index::Found;
use super::place::Place;
use super::record::Kind;
use super::segment::{Segment, number_of};

/// What earlier runs have left.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) segments: BTreeMap<NonZeroU32, Arc<Segment>>,
    /// The bytes of each.
    pub(super) bytes: BTreeMap<NonZeroU32, u64>,
    /// Of the hashes of keys; none where there are no segments.
    pub(super) seed: Option<u64>,
}

/// Opens the segments of a folder. Files that were segments and are not readable as such go; other files stay where they are.
pub(super) fn open(folder: &Path, bytes_max: u64, segment_bytes: u32) -> io::Result<Left> {
    let mut numbers = Vec::new();
    for file in std::fs::read_dir(folder)? {
        numbers.extend(file?.file_name().to_str().and_then(number_of));
    }
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let (mut left, mut bytes) = (Left::default(), 0);
    for number in numbers {
        let opened = Segment::open(folder, number).and_then(|(segment, seed)| Ok((segment.len()?, segment, seed)));
        match opened {
            // The newest ones, as far as they fit beside two that are being written.
            Ok((len, segment, seed)) if *left.seed.get_or_insert(seed) == seed => {
                bytes += len;
                if bytes + 2 * u64::from(segment_bytes) <= bytes_max {
                    left.segments.insert(number, Arc::new(segment));
                    left.bytes.insert(number, len);
                } else {
                    segment.remove();
                }
            }
            Ok((_, segment, _)) => segment.remove(),
            Err(error) => {
                tracing::warn!(segment = %number, %error, "cache: a segment cannot be read and is removed");
                std::fs::remove_file(folder.join(super::segment::file_name(number.get())))?;
            }
        }
    }
    Ok(left)
}

/// Reads the lists of all segments, and then the index from them: what is waited for is there soonest, and what is older never hides what is newer. Gives heads that must
/// not be found again. (For a moment this takes 32 bytes more for each response.)
pub(super) fn load(shared: &Shared, sealed: &mut BTreeMap<NonZeroU32, u64>) -> Vec<(u64, Place)> {
    let began = Instant::now();
    let segments: Vec<Arc<Segment>> = shared.segments.read().values().rev().cloned().collect();
    let (mut found, mut scanned) = (Found::default(), 0);
    for segment in &segments {
        let len = sealed.get(&segment.number).copied().unwrap_or(0);
        match list_segment(shared, segment, len, &mut found) {
            Ok(None) => {}
            Ok(Some(len)) => {
                scanned += 1;
                sealed.insert(segment.number, len);
            }
            Err(error) => {
                tracing::warn!(segment = %segment.number, %error, "cache: a segment cannot be listed and is removed");
                sealed.remove(&segment.number);
                shared.segments.write().remove(&segment.number);
                segment.remove();
            }
        }
    }
    let gone = shared.index.load(found);
    if !segments.is_empty() {
        let (folder, entries, ms) = (shared.folder.display(), shared.index.heads(), began.elapsed().as_millis() as u64);
        tracing::info!(%folder, segments = segments.len(), scanned, entries, ms, "cache: what earlier runs have stored is there");
    }
    gone
}

/// Gives the segment's new length where it had no list.
fn list_segment(shared: &Shared, segment: &Segment, len: u64, found: &mut Found) -> io::Result<Option<u64>> {
    let listing = segment.listing(len)?;
    // Behind its end its last write was torn. Without room for a list it is scanned again the next time.
    let sealed = listing.scanned.then(|| segment.seal(listing.end, &listing.items).unwrap_or(listing.end.into()));
    for item in listing.items.into_iter().rev() {
        match item.kind {
            // Before the heads that lead to them.
            Kind::Slice => shared.index.put_old_slice(item.name, item.place),
            Kind::Head | Kind::Dead => found.add(item),
        }
    }
    Ok(sealed)
}

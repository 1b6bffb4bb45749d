//! What a node finds on disk when it starts: the segments of earlier runs. Their heads say at once what they are; their lists are read while the node serves already.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::Shared;
use super::record::Kind;
use super::segment::{Segment, number_of};

/// The segments of a folder, and the seed of their names. Files that were segments and are not readable as such go; other files stay where they are.
#[allow(clippy::type_complexity, reason = "segments by number, seed")]
pub(super) fn open(folder: &Path, bytes_max: u64, segment_bytes: u32) -> io::Result<(BTreeMap<NonZeroU32, Arc<Segment>>, Option<u64>)> {
    let mut numbers = Vec::new();
    for file in std::fs::read_dir(folder)? {
        numbers.extend(file?.file_name().to_str().and_then(number_of));
    }
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let (mut segments, mut seed, mut bytes) = (BTreeMap::new(), None, 0);
    for number in numbers {
        let opened = Segment::open(folder, number).and_then(|(segment, seed)| Ok((segment.len()?, segment, seed)));
        match opened {
            // The newest ones, as far as they fit beside two that are being written.
            Ok((len, segment, its_seed)) if *seed.get_or_insert(its_seed) == its_seed => {
                bytes += len;
                if bytes + 2 * u64::from(segment_bytes) <= bytes_max {
                    segments.insert(number, Arc::new(segment));
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
    Ok((segments, seed))
}

/// Reads the lists of all segments into the index, newest first: what is asked for now is there soonest, and what is older never hides what is newer.
pub(super) fn load(shared: &Shared, sealed: &mut BTreeMap<NonZeroU32, u64>) {
    let began = Instant::now();
    let segments: Vec<Arc<Segment>> = shared.segments.read().values().rev().cloned().collect();
    let mut scanned = 0;
    for segment in &segments {
        match load_segment(shared, segment) {
            Ok(was_scanned) => {
                scanned += usize::from(was_scanned);
                sealed.insert(segment.number, segment.len().unwrap_or(0));
            }
            Err(error) => {
                tracing::warn!(segment = %segment.number, %error, "cache: a segment cannot be listed and is removed");
                sealed.remove(&segment.number);
                shared.segments.write().remove(&segment.number);
                segment.remove();
            }
        }
    }
    shared.index.loaded();
    if !segments.is_empty() {
        let (folder, entries, ms) = (shared.folder.display(), shared.index.heads(), began.elapsed().as_millis() as u64);
        tracing::info!(%folder, segments = segments.len(), scanned, entries, ms, "cache: what earlier runs have stored is there");
    }
}

fn load_segment(shared: &Shared, segment: &Segment) -> io::Result<bool> {
    let listing = segment.listing()?;
    if listing.scanned {
        // Behind this its last write was torn. Without room for a list it is scanned again the next time.
        let _ = segment.seal(listing.end, &listing.items);
    }
    for item in listing.items.iter().rev() {
        match item.kind {
            Kind::Head => {
                if shared.index.put_old(item.name, item.place) {
                    segment.kill(item.place, item.name)?;
                }
            }
            Kind::Dead => shared.index.hide(item.name),
            Kind::Slice => shared.index.put_old_slice(item.name, item.place),
        }
    }
    Ok(listing.scanned)
}

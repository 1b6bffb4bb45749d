//! The seam for places that hold responses: memory now; slower ones are asked by a fill before it asks the upstream, so that a hit in memory
//! never waits.

use super::entry::Slot;

/// A place that holds responses by key. Shared; does not block.
pub trait Tier: Send + Sync + 'static {
    /// What is stored under a key.
    fn get(&self, key: &[u8]) -> Option<Slot>;

    /// Replaces what is stored under a key by what `change` makes of it. Changes of one key happen one after the other.
    fn change(&self, key: &[u8], change: &mut dyn FnMut(Option<&Slot>) -> Option<Slot>);

    /// Whether it has something for a key; asking does not count as a use.
    fn holds(&self, key: &[u8]) -> bool;

    /// Whether something of so many bytes that it does not have should come in: there is room, or the key was asked for before. Asking counts as being asked for.
    fn welcomes(&self, key: &[u8], bytes: u64) -> bool;

    /// Whether a key was asked for before, lately. Asking counts as being asked for.
    fn knows(&self, key: &[u8]) -> bool;

    /// What is stored under a key; asking does not count as a use. As slow as all that is stored is much.
    fn peek(&self, key: &[u8]) -> Option<Slot>;

    /// Keys and bytes that it holds; some may be a moment old.
    fn usage(&self) -> (u64, u64);
}

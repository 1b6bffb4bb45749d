//! Versions whose modules are arriving: what the edge announces is bounded before it is held.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use selvedge_runtime::protocol::{LoadHead, MODULES_MAX, Slot};
use selvedge_runtime::{Module, ModuleKind};

use crate::limits::{LOADS_INCOMPLETE_BYTES_MAX, LOADS_INCOMPLETE_MAX};

/// The incomplete versions of a thread.
#[derive(Default)]
pub(super) struct Loads {
    loads: BTreeMap<Slot, Load>,
    bytes_announced: u64,
}

struct Load {
    head: LoadHead,
    modules: Vec<Module>,
    arriving: Option<Arriving>,
    bytes_announced: u64,
}

/// The module announced last: its bytes, then its source map.
struct Arriving {
    specifier: String,
    kind: ModuleKind,
    bytes_len: usize,
    total_len: usize,
    got: BytesMut,
}

/// What the edge must not send: the link ends.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum LoadError {
    #[error("slot {0} is used already")]
    SlotUsed(Slot),
    #[error("slot {0} is not loading")]
    NotLoading(Slot),
    #[error("too many versions are loading")]
    TooMany,
    #[error("modules are too large or too many")]
    TooLarge,
    #[error("modules do not arrive as they were announced")]
    OutOfOrder,
}

impl Loads {
    pub(super) fn begin(&mut self, slot: Slot, head: LoadHead) -> Result<(), LoadError> {
        if self.loads.len() >= LOADS_INCOMPLETE_MAX {
            return Err(LoadError::TooMany);
        }
        if head.modules_len > MODULES_MAX {
            return Err(LoadError::TooLarge);
        }
        let load = Load { head, modules: Vec::new(), arriving: None, bytes_announced: 0 };
        if self.loads.insert(slot, load).is_some() { Err(LoadError::SlotUsed(slot)) } else { Ok(()) }
    }

    pub(super) fn module(&mut self, slot: Slot, specifier: String, kind: ModuleKind, lens: (u64, u64)) -> Result<(), LoadError> {
        let load = self.loads.get_mut(&slot).ok_or(LoadError::NotLoading(slot))?;
        if load.arriving.is_some() || load.modules.len() as u64 >= u64::from(load.head.modules_len) {
            return Err(LoadError::OutOfOrder);
        }
        let total = lens.0.checked_add(lens.1).ok_or(LoadError::TooLarge)?;
        let announced = self.bytes_announced.checked_add(total).filter(|bytes| *bytes <= LOADS_INCOMPLETE_BYTES_MAX);
        self.bytes_announced = announced.ok_or(LoadError::TooLarge)?;
        load.bytes_announced += total;
        // Grows with what arrives, not with what is announced.
        let got = BytesMut::new();
        load.arriving = Some(Arriving { specifier, kind, bytes_len: lens.0 as usize, total_len: total as usize, got });
        load.settle();
        Ok(())
    }

    pub(super) fn bytes(&mut self, slot: Slot, bytes: &Bytes) -> Result<(), LoadError> {
        let load = self.loads.get_mut(&slot).ok_or(LoadError::NotLoading(slot))?;
        let arriving = load.arriving.as_mut().ok_or(LoadError::OutOfOrder)?;
        if bytes.len() > arriving.total_len - arriving.got.len() {
            return Err(LoadError::OutOfOrder);
        }
        arriving.got.extend_from_slice(bytes);
        load.settle();
        Ok(())
    }

    pub(super) fn end(&mut self, slot: Slot) -> Result<(LoadHead, Vec<Module>), LoadError> {
        let load = self.loads.remove(&slot).ok_or(LoadError::NotLoading(slot))?;
        self.bytes_announced -= load.bytes_announced;
        if load.arriving.is_some() || load.modules.len() as u64 != u64::from(load.head.modules_len) {
            return Err(LoadError::OutOfOrder);
        }
        Ok((load.head, load.modules))
    }

    /// Forgets a version; false where it was not loading.
    pub(super) fn forget(&mut self, slot: Slot) -> bool {
        let load = self.loads.remove(&slot);
        self.bytes_announced -= load.as_ref().map_or(0, |load| load.bytes_announced);
        load.is_some()
    }

    pub(super) fn contains(&self, slot: Slot) -> bool {
        self.loads.contains_key(&slot)
    }
}

impl Load {
    /// Takes the module that arrives into the list, once all of it is here.
    fn settle(&mut self) {
        let Some(arriving) = self.arriving.take_if(|arriving| arriving.got.len() == arriving.total_len) else { return };
        let mut bytes = arriving.got.freeze();
        let source_map = Some(bytes.split_off(arriving.bytes_len)).filter(|map| !map.is_empty());
        self.modules.push(Module { specifier: arriving.specifier, kind: arriving.kind, bytes, source_map });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(modules_len: u32) -> LoadHead {
        LoadHead {
            worker: "w".into(),
            version: "v".into(),
            entry: "a.js".into(),
            modules_len,
            vars: BTreeMap::new(),
            compatibility_date: "2026-01-01".into(),
            compatibility_flags: Vec::new(),
            limits: selvedge_runtime::Limits::default(),
        }
    }

    #[test]
    fn modules_arrive_in_pieces_with_their_maps() {
        let mut loads = Loads::default();
        loads.begin(1, head(2)).unwrap();
        loads.module(1, "a.js".into(), ModuleKind::EsModule, (5, 2)).unwrap();
        for piece in ["abc", "de{", "}"] {
            loads.bytes(1, &Bytes::from_static(piece.as_bytes())).unwrap();
        }
        loads.module(1, "empty".into(), ModuleKind::Text, (0, 0)).unwrap();
        let (_, modules) = loads.end(1).unwrap();
        assert_eq!((&modules[0].bytes[..], modules[0].source_map.as_deref()), (&b"abcde"[..], Some(&b"{}"[..])));
        assert_eq!((modules[1].bytes.len(), &modules[1].source_map), (0, &None));
        assert_eq!(loads.bytes_announced, 0);
    }

    #[test]
    fn what_was_not_announced_is_refused() {
        let mut loads = Loads::default();
        assert_eq!(loads.bytes(1, &Bytes::new()), Err(LoadError::NotLoading(1)));
        loads.begin(1, head(1)).unwrap();
        assert_eq!(loads.bytes(1, &Bytes::new()), Err(LoadError::OutOfOrder));
        let huge = (u64::MAX, 1);
        assert_eq!(loads.module(1, "a.js".into(), ModuleKind::EsModule, huge), Err(LoadError::TooLarge));
        loads.module(1, "a.js".into(), ModuleKind::EsModule, (1, 0)).unwrap();
        assert_eq!(loads.bytes(1, &Bytes::from_static(b"ab")), Err(LoadError::OutOfOrder));
        assert_eq!(loads.end(1).unwrap_err(), LoadError::OutOfOrder);
    }

    #[test]
    fn incomplete_versions_are_bounded_in_number_and_bytes() {
        let mut loads = Loads::default();
        for slot in 0..LOADS_INCOMPLETE_MAX as Slot {
            loads.begin(slot, head(1)).unwrap();
        }
        assert_eq!(loads.begin(99, head(1)), Err(LoadError::TooMany));
        let half = LOADS_INCOMPLETE_BYTES_MAX / 2 + 1;
        loads.module(0, "a".into(), ModuleKind::Data, (half, 0)).unwrap();
        assert_eq!(loads.module(1, "a".into(), ModuleKind::Data, (half, 0)), Err(LoadError::TooLarge));
        assert!(loads.forget(0));
        loads.module(1, "a".into(), ModuleKind::Data, (half, 0)).unwrap();
    }
}

//! One running invocation: what it may still send and receive.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use selvedge_runtime::protocol::{Fields, Part, RequestHead, StreamId};
use selvedge_runtime::{ClientInfo, Outcome};
use smallvec::SmallVec;

/// Streams by id. The edge chooses the ids, and they spread over the low bits: no hash is needed against anyone.
pub(super) type Streams = HashMap<StreamId, Live, BuildHasherDefault<StreamHasher>>;

/// Spreads a stream's id over the table.
#[derive(Default)]
pub(super) struct StreamHasher(u64);

impl Hasher for StreamHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32((*byte).into()));
    }

    fn write_u32(&mut self, id: u32) {
        // Fibonacci hashing: the table looks at the high bits too.
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// One running invocation.
pub(super) struct Live {
    pub(super) head: Option<RequestHead<Fields>>,
    /// The request's method is HEAD: its response may say a length that it does not have.
    pub(super) is_head: bool,
    pub(super) client: ClientInfo,
    pub(super) answered: bool,
    pub(super) outcome: Outcome,
    /// The number of the last call to the edge.
    pub(super) last_call: Part,
    /// Calls without an answer that it still waits for.
    pub(super) asked: SmallVec<[Part; 4]>,
    pub(super) incoming: SmallVec<[Incoming; 2]>,
    pub(super) outgoing: SmallVec<[Outgoing; 2]>,
}

/// A body on its way in: the credit that the edge has, and what is to be given back.
pub(super) struct Incoming {
    pub(super) part: Part,
    pub(super) credit: u32,
    pub(super) owed: u32,
}

/// A body on its way out.
pub(super) struct Outgoing {
    pub(super) part: Part,
    pub(super) credit: u32,
    /// JavaScript was told that there is no credit, and waits.
    pub(super) starved: bool,
}

impl Live {
    /// A call is answered, or wants no answer any more. False where none was awaited.
    pub(super) fn settle(&mut self, part: Part) -> bool {
        let at = self.asked.iter().position(|asked| *asked == part);
        at.map(|at| self.asked.swap_remove(at)).is_some()
    }

    pub(super) fn incoming(&mut self, part: Part) -> Option<&mut Incoming> {
        self.incoming.iter_mut().find(|body| body.part == part)
    }

    pub(super) fn outgoing(&mut self, part: Part) -> Option<&mut Outgoing> {
        self.outgoing.iter_mut().find(|body| body.part == part)
    }
}

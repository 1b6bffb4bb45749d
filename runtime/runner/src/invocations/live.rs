//! One running invocation: what it may still send and receive.

use selvedge_runtime::protocol::{Part, RequestHead};
use selvedge_runtime::{ClientInfo, Outcome};
use smallvec::SmallVec;

/// One running invocation.
pub(super) struct Live {
    pub(super) head: Option<Box<RequestHead>>,
    /// The request's method is HEAD: its response may say a length that it does not have.
    pub(super) is_head: bool,
    pub(super) client: ClientInfo,
    pub(super) answered: bool,
    pub(super) outcome: Outcome,
    pub(super) fetches: Part,
    pub(super) subrequests: usize,
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
    pub(super) fn incoming(&mut self, part: Part) -> Option<&mut Incoming> {
        self.incoming.iter_mut().find(|body| body.part == part)
    }

    pub(super) fn outgoing(&mut self, part: Part) -> Option<&mut Outgoing> {
        self.outgoing.iter_mut().find(|body| body.part == part)
    }
}

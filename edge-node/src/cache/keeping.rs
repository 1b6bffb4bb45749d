//! What becomes of a response that may be stored: decided once, when its head is here, so that `Cache-Status` can say it.

use super::policy::Refusal;
use super::status::Detail;

/// Whether a response is kept, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// It is stored when it is whole.
    Stored,
    /// Nobody asked for it before, and there is no room for strangers: it is stored only where others follow its fetch.
    Stranger,
    /// It is not stored, because of this; none: it was taken back while it was fetched.
    Not(Option<Refusal>),
}

/// What was decided about a response: whether memory takes it, and what becomes of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Welcome {
    /// Memory takes it.
    pub(super) in_memory: bool,
    /// What is known when its head is here.
    pub(crate) keeping: Keeping,
}

impl Keeping {
    /// What `Cache-Status` says of a body of this length: whether it is stored, and what else. RFC 9211, section 2.4: `stored` says that the cache did it. What has no length
    /// may prove too large after its head has gone out, and its client would not see it: of that it is not said.
    pub fn said(self, length: Option<u64>) -> (bool, Option<&'static str>) {
        match self {
            Self::Stored if length.is_none() => (false, Some(Detail::UnknownLength.name())),
            Self::Stored => (true, None),
            Self::Stranger => (false, Some(Refusal::Admission.name())),
            Self::Not(refusal) => (false, refusal.map(Refusal::name)),
        }
    }

    /// The same for those who follow the fetch: a stranger is none any more.
    #[must_use]
    pub fn shared(self) -> Self {
        if self == Self::Stranger { Self::Stored } else { self }
    }
}

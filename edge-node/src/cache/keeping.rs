//! What becomes of a response that may be stored: decided once, when its head is here, so that `Cache-Status` can say it.

use super::policy::Refusal;

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
    /// Why it is not stored for whoever ordered its fetch.
    pub fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Stored => None,
            Self::Stranger => Some(Refusal::Admission),
            Self::Not(refusal) => refusal,
        }
    }

    /// The same for those who follow the fetch: a stranger is none any more.
    #[must_use]
    pub fn shared(self) -> Self {
        if self == Self::Stranger { Self::Stored } else { self }
    }
}

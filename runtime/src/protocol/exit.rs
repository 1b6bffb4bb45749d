//! How a runner says, with its exit code, why it ended. Deaths by a signal have none: see the supervisor.

/// Why a runner ended by itself. The numbers are those of the process's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Its links were closed: the edge is done with it, or gone.
    Finished = 0,
    /// Its command line or what it inherited makes no sense.
    Usage = 64,
    /// A worker took more memory than it may, in a way that V8 answers by aborting the process.
    Memory = 65,
    /// The sandbox could not be set up, or its proof failed.
    Sandbox = 66,
    /// The edge broke the protocol.
    Protocol = 67,
    /// A defect of ours: a panic, a failed invariant.
    Internal = 70,
}

impl Exit {
    /// The process's exit code.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What an exit code says.
    pub const fn from_code(code: i32) -> Option<Self> {
        Some(match code {
            0 => Self::Finished,
            64 => Self::Usage,
            65 => Self::Memory,
            66 => Self::Sandbox,
            67 => Self::Protocol,
            70 => Self::Internal,
            _ => return None,
        })
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

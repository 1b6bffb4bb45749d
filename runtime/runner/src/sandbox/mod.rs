//! What a runner takes away from itself before it runs a line of JavaScript, in the order that the kernel forces.

/// One step of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Close every descriptor but the links, the board and stderr.
    Descriptors,
}

/// The order in which a runner takes its steps.
pub const ORDER: [Step; 1] = [Step::Descriptors];

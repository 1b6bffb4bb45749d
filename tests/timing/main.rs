//! What is promised in milliseconds: how late the answers of offenders come, what their neighbours notice,
//! how fast a save is swapped in. A binary of its own, whose tests run
//! one after the other: what one measures is not to be the load of another.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test, with its place")]

mod lateness;
mod neighbours;
mod swap;

/// Held by the test that runs.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Everything that a worker without bounds can do: the fixtures by name.
const OFFENDERS: [Offender; 9] = [
    Offender { name: "throws", outcomes: &["exception"], allocates: false },
    Offender { name: "spin", outcomes: &["exceededCpu"], allocates: false },
    Offender { name: "index_of", outcomes: &["exceededCpu"], allocates: false },
    Offender { name: "looping_getters", outcomes: &["exception", "exceededCpu"], allocates: false },
    Offender { name: "recurse", outcomes: &["exceededCpu"], allocates: false },
    Offender { name: "allocate_objects", outcomes: MEMORY_OR_CPU, allocates: true },
    Offender { name: "allocate_array", outcomes: MEMORY_OR_CPU, allocates: true },
    Offender { name: "allocate_buffers", outcomes: MEMORY_OR_CPU, allocates: true },
    Offender { name: "allocate_wasm", outcomes: MEMORY_OR_CPU, allocates: true },
];

/// What allocates without end meets one of them, whichever comes first on this machine.
const MEMORY_OR_CPU: &[&str] = &["exceededMemory", "exceededCpu"];

/// One of them.
struct Offender {
    name: &'static str,
    /// What it may end with, with the limits that a worker has by default.
    outcomes: &'static [&'static str],
    /// It asks for more and more memory.
    allocates: bool,
}

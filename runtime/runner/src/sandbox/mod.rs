//! What a runner takes away from itself before it runs a line of JavaScript, in the order that the kernel forces.
//!
//! A user namespace cannot be made once a second thread exists (EINVAL), a thread cannot be made between
//! `unshare(CLONE_NEWPID)` and a fork, and a thread that is older than `landlock_restrict_self` stays free of it. So
//! everything but the system call filter comes before V8 and its threads; the filter comes last, on all of them at once.
//! Then the runner tries to open, to connect and to execute **on each of its threads**, and refuses to run where any of
//! it succeeds.

mod descriptors;
mod filter;
mod landlocked;
mod namespaces;
mod privileges;
mod proof;
mod waiter;

use crate::arguments::Arguments;

/// One step of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Close every descriptor but the links, the board and stderr.
    Descriptors,
    /// Let the kernel kill this process first when memory runs out. Needs `/proc`.
    OomScore,
    /// User, mount, net, ipc and pid namespaces of its own; go on as process 1 of the latter.
    Namespaces,
    /// Keep one number about this process, then an empty, read-only root.
    Root,
    /// Give up all capabilities, for good.
    Privileges,
    /// No file and no TCP connection, by Landlock: a second wall, where the kernel has it.
    Landlock,
    /// Resource limits.
    Limits,
    /// From here on there are threads: V8's platform, then those of JavaScript (which wait).
    Threads,
    /// Try on every thread that the walls hold before there is a filter.
    Walls,
    /// Filter system calls, on all threads.
    Filter,
    /// Try on every thread that open, socket and execve are refused by the filter.
    Proof,
}

/// The order in which a runner takes its steps.
pub const ORDER: [Step; 11] = [
    Step::Descriptors,
    Step::OomScore,
    Step::Namespaces,
    Step::Root,
    Step::Privileges,
    Step::Landlock,
    Step::Limits,
    Step::Threads,
    Step::Walls,
    Step::Filter,
    Step::Proof,
];

/// A step that did not do what it must.
#[derive(Debug, thiserror::Error)]
#[error("sandbox: {step:?}: {reason}")]
pub struct SandboxError {
    /// Which.
    pub step: Step,
    /// What happened.
    pub reason: String,
}

/// What is known of the sandbox while it is built.
#[derive(Default)]
struct Progress {
    namespaced: bool,
    landlocked: bool,
    missing: Vec<String>,
}

/// Takes all steps. `threads` is called at [`Step::Threads`]. Gives what does not hold: empty, unless the runner was told to
/// run all the same. Must be called while the process has one thread; the process that called it is then only
/// the parent that waits, and does not return from here.
pub fn enter(arguments: &Arguments, order: &[Step], threads: impl FnOnce() -> Result<(), String>) -> Result<String, SandboxError> {
    let mut progress = Progress::default();
    let mut threads = Some(threads);
    for step in order {
        let result = match step {
            Step::Threads => threads.take().map_or(Ok(()), |start| start()),
            step => take(*step, arguments, &mut progress),
        };
        let Err(reason) = result else { continue };
        let error = SandboxError { step: *step, reason };
        // Without threads there is nothing to run, and foreign descriptors are no matter of the kernel's features.
        if !arguments.allow_unsandboxed || matches!(step, Step::Threads | Step::Descriptors) {
            return Err(error);
        }
        eprintln!("runner: UNSANDBOXED: {error}");
        progress.missing.push(format!("{step:?}"));
    }
    Ok(progress.missing.join(", "))
}

fn take(step: Step, arguments: &Arguments, progress: &mut Progress) -> Result<(), String> {
    match step {
        Step::Descriptors => descriptors::keep_only(arguments).map_err(|error| error.to_string()),
        Step::OomScore => std::fs::write("/proc/self/oom_score_adj", "1000").map_err(|error| error.to_string()),
        Step::Namespaces => {
            namespaces::enter(arguments).map_err(|error| error.to_string())?;
            progress.namespaced = true;
            Ok(())
        }
        // Without a mount namespace of its own this would take the machine's root away.
        Step::Root if !progress.namespaced => {
            let _ = crate::memory::open();
            Err("there is no mount namespace to do it in".into())
        }
        Step::Root => crate::memory::open().and_then(|()| namespaces::empty_root()).map_err(|error| error.to_string()),
        Step::Privileges => privileges::drop_all().map_err(|error| error.to_string()),
        Step::Landlock => {
            progress.landlocked = landlocked::restrict()?;
            if !progress.landlocked {
                eprintln!("runner: this kernel has no landlock: namespaces and the system call filter hold alone");
            }
            Ok(())
        }
        Step::Limits => privileges::limit_resources(arguments.links.len()).map_err(|error| error.to_string()),
        Step::Walls => proof::walls(progress.namespaced, progress.landlocked),
        Step::Filter => filter::apply(),
        Step::Proof => proof::filter(progress.namespaced),
        Step::Threads => Ok(()),
    }
}

//! Capabilities, and limits of the process's resources.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::limits::data_bytes_max;

/// More capabilities than any kernel has: the loop ends at the first that it does not know.
const CAPABILITIES_MAX: libc::c_ulong = 64;

/// Gives up all capabilities, also those that an executed program could gain.
pub(super) fn drop_all() -> io::Result<()> {
    for capability in 0..CAPABILITIES_MAX {
        // SAFETY: a plain call. It fails with EINVAL beyond the last capability, with EPERM where there is none to drop.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            break;
        }
    }
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    rustix::thread::set_no_new_privs(true)?;
    // Nobody of the same user may read its memory, and no core file may hold a worker's secrets.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let left = rustix::thread::capabilities(None)?;
    let empty = left.effective.is_empty() && left.permitted.is_empty() && left.inheritable.is_empty();
    if empty { Ok(()) } else { Err(io::Error::other(format!("capabilities are left: {:?}", left.permitted))) }
}

/// Bounds the memory of a process with so many JavaScript threads; no core files, no locked memory.
pub(super) fn limit_resources(threads: usize) -> io::Result<()> {
    for (resource, most) in [(Resource::Data, data_bytes_max(threads)), (Resource::Core, 0), (Resource::Memlock, 0)] {
        let most = rustix::process::getrlimit(resource).maximum.map_or(most, |maximum| most.min(maximum));
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    Ok(())
}

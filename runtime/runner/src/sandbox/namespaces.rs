//! Namespaces of its own and an empty root.

use std::fs;
use std::io;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

use super::{descriptors, waiter};
use crate::arguments::Arguments;

/// Who the runner is inside its user namespace: nobody.
const INNER_ID: u32 = 65534;
/// Where the empty root is mounted at first: a folder that exists wherever a runner can start (it has just used it).
const MOUNT_POINT: &str = "/proc";

/// Leaves the namespaces of the edge and forks: the child returns, as process 1 of its pid namespace; the parent waits for it,
/// passes its death on and never returns.
pub(super) fn enter(arguments: &Arguments) -> io::Result<()> {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let edge = waiter::Edge::of_parent()?;
    let flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWPID;
    // SAFETY: no descriptor table is unshared; there is one thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{INNER_ID} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{INNER_ID} {gid} 1"))?;

    let (closes_with_parent, held_by_parent) = io::pipe()?;
    rustix::io::ioctl_fionbio(&closes_with_parent, true)?;
    // SAFETY: there is one thread, so the child may do anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop((edge, held_by_parent));
            waiter::die_with_parent(&closes_with_parent.into())
        }
        child => {
            drop(closes_with_parent);
            descriptors::close_all(arguments);
            waiter::wait(child, &edge, held_by_parent.into())
        }
    }
}

/// Makes an empty, read-only tmpfs the root and lets go of the old one.
pub(super) fn empty_root() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    rustix::mount::mount("runner", MOUNT_POINT, "tmpfs", flags, c"size=4k,nr_inodes=2,mode=0555")?;
    rustix::process::chdir(MOUNT_POINT)?;
    // The old root lands on top of the new one and is taken off (pivot_root(2), "pivot_root(".", ".")"). The very
    // first root of a machine cannot be pivoted away from; there, the new one is moved over it.
    if rustix::process::pivot_root(".", ".").is_ok() {
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    } else {
        rustix::mount::mount_move(MOUNT_POINT, "/")?;
        rustix::process::chroot(".")?;
    }
    rustix::process::chdir("/")?;
    rustix::mount::mount_remount("/", flags | MountFlags::BIND | MountFlags::RDONLY, c"")?;
    match fs::read_dir("/")?.next() {
        None => Ok(()),
        Some(entry) => Err(io::Error::other(format!("the new root is not empty: {:?}", entry?.path()))),
    }
}

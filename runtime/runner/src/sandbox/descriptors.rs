//! Only the links, the board and stderr stay open.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::arguments::Arguments;

/// Closes everything else, and checks that the links are what they should be. stdin becomes empty, and what is printed
/// to stdout goes to stderr: a closed number would be given to the next descriptor that is made.
pub(super) fn keep_only(arguments: &Arguments) -> io::Result<()> {
    let (empty, end) = io::pipe()?;
    drop(end);
    // SAFETY: replaces stdin and stdout, which are not closed by anybody.
    if unsafe { libc::dup2(empty.as_raw_fd(), libc::STDIN_FILENO) < 0 || libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO) < 0 } {
        return Err(io::Error::last_os_error());
    }
    drop(empty);

    let mut kept = arguments.links.clone();
    kept.push(arguments.board);
    kept.sort_unstable();
    let mut from: RawFd = 3;
    for kept in kept {
        close_range(from, kept - 1)?;
        from = kept.saturating_add(1);
    }
    close_range(from, RawFd::MAX)?;
    for link in &arguments.links {
        check_link(borrow(*link))?;
    }
    rustix::io::fcntl_setfd(borrow(arguments.board), FdFlags::CLOEXEC)?;
    Ok(())
}

/// Closes what only the runner needs, in the process that waits for it.
pub(super) fn close_all(arguments: &Arguments) {
    for number in arguments.links.iter().chain([&arguments.board]) {
        // SAFETY: these numbers were inherited for us, and nothing owns them in this process.
        unsafe { libc::close(*number) };
    }
}

fn check_link(link: BorrowedFd<'_>) -> io::Result<()> {
    if sockopt::socket_domain(link)? != AddressFamily::UNIX || sockopt::socket_type(link)? != SocketType::STREAM {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a link is not a Unix stream socket"));
    }
    rustix::io::fcntl_setfd(link, FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(link, true)?;
    Ok(())
}

fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: called before anything of ours owns a descriptor in this range.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn borrow<'fd>(number: RawFd) -> BorrowedFd<'fd> {
    // SAFETY: a number that is not open gives EBADF where it is used; nothing closes these.
    unsafe { BorrowedFd::borrow_raw(number) }
}

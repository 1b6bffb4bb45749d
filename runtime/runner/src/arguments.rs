//! What a runner is told on its command line: the descriptors that it inherited, and a few flags.

use std::ffi::OsString;
use std::os::fd::RawFd;

use selvedge_runtime::protocol::LINKS_MAX;

/// The flag of [`Arguments::console_places`].
pub const CONSOLE_PLACES: &str = "--console-places";

/// A runner's command line, after the arguments that named it (`selvedge runner`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// `--links 3,4,...`: one stream socket for each JavaScript thread.
    pub links: Vec<RawFd>,
    /// `--board N`: the shared memory.
    pub board: RawFd,
    /// `--allow-unsandboxed`: run also where the kernel lacks what the sandbox needs.
    pub allow_unsandboxed: bool,
    /// `--console-places`: each line of `console.*` says where it was called. For whoever writes a worker.
    pub console_places: bool,
    /// `--v8-flags "--jitless ..."`: for a worker that has had its strikes.
    pub v8_flags: Vec<String>,
}

/// A command line that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ArgumentsError {
    /// An unknown or repeated argument.
    #[error("unexpected argument {0:?}")]
    Unexpected(OsString),
    /// An argument without its value.
    #[error("{0} needs a value")]
    Value(&'static str),
    /// A descriptor that is not a number from 3.
    #[error("not an inherited descriptor: {0:?}")]
    Descriptor(String),
    /// Too few or too many links, or one that is named twice.
    #[error("{0} links: 1 to {LINKS_MAX} different descriptors are needed")]
    Links(usize),
    /// A needed argument is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
}

impl Arguments {
    /// Reads the arguments after `selvedge runner`.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, ArgumentsError> {
        let mut arguments = arguments.into_iter();
        let (mut links, mut board, mut v8_flags) = (None, None, Vec::new());
        let (mut allow_unsandboxed, mut console_places) = (false, false);
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--links") if links.is_none() => links = Some(descriptors(&value("--links", &mut arguments)?)?),
                Some("--board") if board.is_none() => board = Some(descriptor(&value("--board", &mut arguments)?)?),
                Some("--allow-unsandboxed") => allow_unsandboxed = true,
                Some(CONSOLE_PLACES) => console_places = true,
                Some("--v8-flags") => v8_flags.extend(value("--v8-flags", &mut arguments)?.split_whitespace().map(str::to_owned)),
                _ => return Err(ArgumentsError::Unexpected(argument)),
            }
        }
        let links = links.ok_or(ArgumentsError::Missing("--links"))?;
        let board = board.ok_or(ArgumentsError::Missing("--board"))?;
        let mut distinct = [links.as_slice(), &[board]].concat();
        distinct.sort_unstable();
        distinct.dedup();
        if links.len() > LINKS_MAX || distinct.len() != links.len() + 1 {
            return Err(ArgumentsError::Links(links.len()));
        }
        Ok(Self { links, board, allow_unsandboxed, console_places, v8_flags })
    }
}

fn value(name: &'static str, arguments: &mut impl Iterator<Item = OsString>) -> Result<String, ArgumentsError> {
    arguments.next().and_then(|value| value.into_string().ok()).ok_or(ArgumentsError::Value(name))
}

fn descriptors(text: &str) -> Result<Vec<RawFd>, ArgumentsError> {
    text.split(',').map(descriptor).collect()
}

fn descriptor(text: &str) -> Result<RawFd, ArgumentsError> {
    text.parse().ok().filter(|number| *number > 2).ok_or_else(|| ArgumentsError::Descriptor(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, ArgumentsError> {
        Arguments::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn links_and_board_are_needed_and_differ() {
        let all = parse("--console-places --links 3,4 --board 5 --allow-unsandboxed").unwrap();
        let (allow_unsandboxed, console_places) = (true, true);
        assert_eq!(all, Arguments { links: vec![3, 4], board: 5, allow_unsandboxed, console_places, v8_flags: Vec::new() });
        assert!(!parse("--links 3 --board 4").unwrap().console_places);
        assert_eq!(parse("--links 3"), Err(ArgumentsError::Missing("--board")));
        assert_eq!(parse("--links 3,3 --board 4"), Err(ArgumentsError::Links(2)));
        assert_eq!(parse("--links 3 --board 3"), Err(ArgumentsError::Links(1)));
    }

    #[test]
    fn what_is_not_an_inherited_descriptor_is_refused() {
        for text in ["2", "-1", "x", "", "99999999999"] {
            assert_eq!(descriptor(text), Err(ArgumentsError::Descriptor(text.into())));
        }
        assert!(matches!(parse("--verbose"), Err(ArgumentsError::Unexpected(_))));
    }
}

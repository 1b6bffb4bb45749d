//! Processes that die, disks that are full, and nodes that have too much to do.

mod disk;
mod drain;
mod kill;
mod overload;

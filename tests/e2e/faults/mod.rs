//! Processes that die, and disks that are full.

mod disk;
mod drain;
mod kill;

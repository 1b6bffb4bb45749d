//! Processes that die, and neighbours that misbehave.

mod disk;
mod drain;
mod kill;
mod lateness;
mod neighbours;

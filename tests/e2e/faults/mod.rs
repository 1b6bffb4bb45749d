//! Processes that die, and neighbours that misbehave.

mod drain;
mod kill;
mod neighbours;

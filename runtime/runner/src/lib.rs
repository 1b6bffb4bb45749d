//! The V8 side of a runner process: what `selvedge runner` becomes.
//!
//! Reading order, which is also the order of a runner's life: [`arguments`] says what it inherited, [`sandbox`] takes
//! everything else away while there is one thread, [`snapshot`] starts V8, `thread` runs one link each: it reads messages
//! ([`isolate`] answers them) and writes once per turn, and `watchdog` keeps the time of them all from outside. `ops` lists
//! everything that JavaScript can ask of Rust, `modules` everything that it can import; `js/` is our own JavaScript.
//! There is no code here that opens a file or a connection.

mod alarm;
pub mod arguments;
mod blobs;
mod engine;
mod exception;
mod heap;
mod hooks;
mod invocations;
pub mod isolate;
mod last_words;
pub mod limits;
mod link;
mod memory;
mod meter;
mod modules;
#[allow(unreachable_pub, missing_docs, reason = "the macros of deno_core make public items")]
mod ops;
mod run;
pub mod sandbox;
pub mod snapshot;
mod span;
mod station;
mod thread;
mod timers;
mod watchdog;

pub use arguments::CONSOLE_PLACES;
pub use run::{main, run};

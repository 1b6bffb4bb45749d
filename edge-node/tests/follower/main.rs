//! Following a registry: one that tells the truth, one that is away, and one that lies.

mod hostile;
mod ordinary;
mod real;
mod registry;

//! The product as its users meet it: real sockets, real V8 in real runner processes, the real database. One binary, because every
//! test binary costs a link; the folders are what the tests are about.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test, with its place")]

mod clients;
mod commands;
mod deployment;
mod faults;
mod request;

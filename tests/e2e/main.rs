//! The product as its users meet it: real sockets, real V8 in real runner processes, the real database. One binary, because every
//! test binary costs a link; the folders are what the tests are about.

mod clients;
mod commands;
mod deployment;
mod faults;
mod request;

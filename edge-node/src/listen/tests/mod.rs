//! Listeners against real clients: raw sockets for h1, hyper for h2, quinn and h3 for h3.

mod drain;
mod framing;
mod h1;
mod h2;
mod h3;
mod server;
mod smuggling;
mod tls;

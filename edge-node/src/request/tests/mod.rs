//! The request path against real upstreams and scripted workers.

mod attacks;
mod beside;
mod caching;
mod collapsing;
mod compressing;
mod counting;
mod explaining;
mod keeping;
mod on_disk;
mod overload;
mod parts;
mod passing;
mod running;
mod settings;
mod slices;
mod slow_readers;
mod smuggling;
mod worker_caches;
mod world;

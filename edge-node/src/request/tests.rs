//! The request path against real upstreams and scripted workers.

//! The life of a deployment, and what may go wrong with it.

mod hostile;
mod many;
mod promote;
mod routes;

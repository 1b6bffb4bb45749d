//! Later.

crate::tests![];

//! The RDB crate on files that real servers wrote.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a rig that breaks stops its test")]

mod by_hand;
mod corpus;
mod corruption;
mod definition;
mod hostile;
mod live;
mod logical;
mod mutants;
mod properties;
mod report;
mod restore;
mod samples;
mod support;

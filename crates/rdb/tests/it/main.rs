//! Tests the RDB crate with files of real servers.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed setup ends its test")]

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

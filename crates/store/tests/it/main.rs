//! Tests of stores over the network, with a real server of the S3 protocol.

#![expect(clippy::unwrap_used, reason = "a failed setup ends its test")]

mod bucket;
mod envelope;
mod identity;
mod spool;

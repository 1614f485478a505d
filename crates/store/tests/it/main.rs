//! Stores over the network, against a real server of the S3 protocol.

#![expect(clippy::unwrap_used, reason = "a rig that breaks stops its test")]

mod bucket;
mod envelope;
mod identity;
mod spool;

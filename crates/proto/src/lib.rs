//! The Redis protocol, sans-IO: no socket, no clock, no runtime.
//!
//! Two layers:
//! - RESP: [`encode_command`] and [`ReplyDecoder`];
//! - [`ReplicaSession`]: the replica's side of `PSYNC`, from the handshake to the last byte of the
//!   RDB. It is fed what the socket read, hands out what the socket should write, and reports
//!   [`ReplicaEvent`]s. Whoever drives it owns the socket and the deadlines.
//!
//! Everything that a server sends is bounded before memory is taken for it.

#![deny(missing_docs)]

mod replica;
mod resp;

pub use replica::{
    Framing, HandshakeError, ReplicaConfig, ReplicaEvent, ReplicaSession, SessionError, Step,
    is_about_login,
};
pub use resp::{DecodeError, Limits, Reply, ReplyDecoder, encode_command};

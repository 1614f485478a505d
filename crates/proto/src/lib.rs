//! The Redis protocol, sans-IO: no socket, no clock, no runtime.
//!
//! Two layers, the upper one with two sides:
//! - RESP: [`encode_command`] and [`ReplyDecoder`];
//! - [`ReplicaSession`]: the replica's side of `PSYNC`, from the handshake to the last byte of the
//!   RDB. It is fed what the socket read, hands out what the socket should write, and reports
//!   [`ReplicaEvent`]s. Whoever drives it owns the socket and the deadlines;
//! - [`PrimarySession`]: the primary's side, for a server that is to load an RDB of ours. It is
//!   driven in the same way and reports [`PrimaryEvent`]s; the RDB itself goes past it.
//!
//! Everything that a peer sends is bounded before memory is taken for it.

#![deny(missing_docs)]

mod primary;
mod replica;
mod resp;

pub use primary::{PrimaryConfig, PrimaryError, PrimaryEvent, PrimarySession, ReplicationStream};
pub use replica::{
    Framing, HandshakeError, ReplicaConfig, ReplicaEvent, ReplicaSession, SessionError, Step,
    is_about_login,
};
pub use resp::{
    DecodeError, Limits, Reply, ReplyDecoder, begin_argument, begin_command, encode_command,
    push_argument,
};

//! The Redis protocol, sans-IO: no socket, no clock, no runtime.
//!
//! The crate has two layers; the upper one has two sides:
//! - RESP: [`encode_command`] and [`ReplyDecoder`];
//! - [`ReplicaSession`]: the replica's side of `PSYNC`, from the handshake to the last byte of the
//!   RDB. The driver feeds it the bytes of the socket, sends its output, and receives
//!   [`ReplicaEvent`]s. The driver owns the socket and the deadlines;
//! - [`PrimarySession`]: the primary's side, for a server that loads an RDB of this service. It is
//!   driven in the same way and reports [`PrimaryEvent`]s; the driver sends the RDB itself.
//!
//! All input of a peer is limited before memory is allocated for it.

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

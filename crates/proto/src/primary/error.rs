//! Errors of a session with a target.

use super::{ARGUMENTS_MAX, COMMANDS_MAX};
use crate::resp::DecodeError;

/// The reason why the session ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrimaryError {
    /// `AUTH` with a user or password that differs from the target's.
    #[error("the peer sent another user name or password than the target's")]
    LoginRefused,
    /// `REPLCONF listening-port` with a port that differs from the target's.
    #[error("the peer listens on port {announced}, the target on {wanted}")]
    WrongPort {
        /// The target's port.
        wanted: u16,
        /// The peer's port, in printable form.
        announced: String,
    },
    /// `PSYNC` without an earlier `REPLCONF listening-port`.
    #[error("the peer announced no listening port; the target would have announced {wanted}")]
    PortNotAnnounced {
        /// The target's port.
        wanted: u16,
    },
    /// The bytes are no command: neither an array of bulk strings nor a line that begins with a
    /// letter. A TLS handshake (0x16) is an example.
    #[error("the peer sent bytes that are no command: {0}")]
    NotACommand(String),
    /// A command exceeds a limit.
    #[error("a command exceeds the limit of {max} {what}")]
    TooLarge {
        /// The limited quantity.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// The peer sends commands, but no `PSYNC`.
    #[error("the peer sent {COMMANDS_MAX} commands without a PSYNC")]
    TooManyCommands,
    /// A command that no replica sends after `PSYNC`, where it cannot get a reply.
    #[error("unexpected command `{0}` after PSYNC")]
    Unexpected(String),
    /// The peer acknowledged bytes that were never sent, so it follows another stream.
    #[error("the peer acknowledged offset {acknowledged}, but the stream ends at {end}")]
    AcknowledgedTooMuch {
        /// The peer's offset.
        acknowledged: u64,
        /// The end of this session's stream.
        end: u64,
    },
}

impl From<DecodeError> for PrimaryError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::TooLarge { what: "values", .. } => {
                Self::TooLarge { what: "arguments", max: ARGUMENTS_MAX }
            }
            DecodeError::TooLarge { what, max } => Self::TooLarge { what, max },
            other => Self::NotACommand(other.to_string()),
        }
    }
}

//! Why a session with a target ends.

use super::{ARGUMENTS_MAX, COMMANDS_MAX};
use crate::resp::DecodeError;

/// Why the session cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrimaryError {
    /// `AUTH` with another user or password than the target's.
    #[error("the peer sent another user name or password than the target's")]
    LoginRefused,
    /// `REPLCONF listening-port` with another port than the target's.
    #[error("the peer listens on port {announced}, the target on {wanted}")]
    WrongPort {
        /// The target's.
        wanted: u16,
        /// The peer's, harmless to print.
        announced: String,
    },
    /// `PSYNC` without a `REPLCONF listening-port` before.
    #[error("the peer announced no listening port; the target would have announced {wanted}")]
    PortNotAnnounced {
        /// The target's.
        wanted: u16,
    },
    /// The bytes are not a command: neither an array of bulk strings nor a line that begins with a
    /// letter. A TLS handshake (0x16), for instance.
    #[error("the peer sent what is no command: {0}")]
    NotACommand(String),
    /// A limit was passed.
    #[error("a command exceeds the limit of {max} {what}")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// The peer talks, but does not come to `PSYNC`.
    #[error("the peer sent {COMMANDS_MAX} commands and still did not synchronise")]
    TooManyCommands,
    /// A command that no replica sends after `PSYNC`, where it cannot be answered any more.
    #[error("unexpected command `{0}` after PSYNC")]
    Unexpected(String),
    /// The peer acknowledged what it was never sent, so it follows another stream than ours.
    #[error("the peer acknowledged offset {acknowledged}, but the stream ends at {end}")]
    AcknowledgedTooMuch {
        /// The peer's offset.
        acknowledged: u64,
        /// The end of our stream.
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

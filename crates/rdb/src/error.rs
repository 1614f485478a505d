//! Faults of an RDB and their positions.

use crate::header::{Header, HeaderError};

/// The stream cannot be decoded from [`offset`](Self::offset) on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {kind}")]
pub struct DecodeError {
    /// Position of the faulty part, in bytes from the beginning of the stream.
    pub offset: u64,
    /// The fault.
    pub kind: DecodeErrorKind,
}

/// Opcodes count down from 255, types of values up from 0 (`rdb.h`).
const FIRST_OPCODE: u8 = 200;

/// The fault of a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeErrorKind {
    /// The stream does not begin with an RDB header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// This version has no opcode and no type of this number. A newer or modified server wrote it:
    /// keep the bytes, because their content cannot be checked.
    #[error(
        "{} {opcode} is unknown in {header}: written by a newer or modified server?",
        if *opcode < FIRST_OPCODE { "the type of value" } else { "opcode" }
    )]
    UnknownOpcode {
        /// The byte found.
        opcode: u8,
        /// The stream's header.
        header: Header,
    },
    /// All parts are known, but the version is not. In an unknown version, known parts may have
    /// another meaning.
    #[error("{0} is a newer version of the format than this build knows")]
    UnknownVersion(Header),
    /// The part is known but cannot be decoded, because the stream does not contain its layout.
    #[error("{0} cannot be read: only the server that wrote it knows the layout")]
    NotSelfDescribing(&'static str),
    /// The bytes contradict the format.
    #[error("corrupt: {0}")]
    Corrupt(&'static str),
    /// The bytes contradict a layout that is known from public documents only, or follow a part in
    /// such a layout. The layout itself may be wrong.
    #[error("the bytes do not fit a layout that is known from public documents only: {0}")]
    Unfit(&'static str),
    /// A length exceeds the [`Limits`](crate::Limits); no memory was allocated for it.
    #[error("{what} of {bytes} bytes is longer than the limit of {limit}")]
    TooLong {
        /// The part that is too long.
        what: &'static str,
        /// Its length in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The stream ends before its end opcode and checksum.
    #[error("the stream ends before its end opcode: it was cut")]
    Truncated,
    /// Bytes follow the end of the stream.
    #[error("bytes follow the end of the stream")]
    TrailingBytes,
}

impl DecodeErrorKind {
    /// Converts the error for a part whose layout is known from public documents only.
    pub(crate) fn doubted(self) -> Self {
        match self {
            Self::Corrupt(what) => Self::Unfit(what),
            Self::Truncated => Self::Unfit("the stream ends before its end opcode"),
            Self::TrailingBytes => Self::Unfit("bytes follow the end of the stream"),
            other => other,
        }
    }

    /// Whether the stream may be sound, with content beyond the knowledge or the limits of this
    /// crate.
    pub fn is_beyond_us(&self) -> bool {
        matches!(
            self,
            Self::UnknownOpcode { .. }
                | Self::UnknownVersion(_)
                | Self::NotSelfDescribing(_)
                | Self::Unfit(_)
                | Self::TooLong { .. }
        )
    }
}

/// The reason why a part cannot be read.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The part is incomplete: it needs at least this many bytes from its beginning.
    Need(usize),
    /// The part is invalid. The error is boxed to keep this type small, because every part returns
    /// it.
    Bad(Box<DecodeErrorKind>),
}

pub(crate) type Take<T> = Result<T, Stop>;

impl From<DecodeErrorKind> for Stop {
    fn from(kind: DecodeErrorKind) -> Self {
        Self::Bad(Box::new(kind))
    }
}

pub(crate) fn corrupt<T, E: From<DecodeErrorKind>>(what: &'static str) -> Result<T, E> {
    Err(DecodeErrorKind::Corrupt(what).into())
}

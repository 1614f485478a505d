//! What can be wrong with an RDB, and where.

use crate::header::{Header, HeaderError};

/// The stream cannot be decoded; nothing after [`offset`](Self::offset) was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {kind}")]
pub struct DecodeError {
    /// Position in the stream, bytes from its beginning, of the part that is wrong.
    pub offset: u64,
    /// What is wrong.
    pub kind: DecodeErrorKind,
}

/// Opcodes count down from 255, types of values up from 0 (`rdb.h`).
const FIRST_OPCODE: u8 = 200;

/// What is wrong with a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeErrorKind {
    /// It does not begin as an RDB.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// No opcode and no type of this version has this number. A newer or modified server wrote
    /// it: keep the bytes, their content cannot be judged.
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
    /// Nothing in it is unknown, but the version is: what is known may mean something else in it.
    #[error("{0} is a newer version of the format than this build knows")]
    UnknownVersion(Header),
    /// A part that is known and cannot be followed, because its layout is not in the stream.
    #[error("{0} cannot be read: its layout is known only to the server that wrote it")]
    NotSelfDescribing(&'static str),
    /// The bytes contradict the format.
    #[error("corrupt: {0}")]
    Corrupt(&'static str),
    /// The bytes contradict a layout that is known from documents alone, or come after a part in
    /// such a layout: it may be the layout that is wrong.
    #[error("the bytes do not fit a layout that is known from documents alone: {0}")]
    Unfit(&'static str),
    /// A length goes beyond the [`Limits`](crate::Limits); nothing was allocated for it.
    #[error("{what} of {bytes} bytes is longer than the limit of {limit}")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Its length in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The stream ends before its end opcode and checksum.
    #[error("the stream ends in the middle: it was cut")]
    Truncated,
    /// Bytes follow the end.
    #[error("bytes follow the end of the stream")]
    TrailingBytes,
}

impl DecodeErrorKind {
    /// The error where a part was in a layout that is known from documents alone.
    pub(crate) fn doubted(self) -> Self {
        match self {
            Self::Corrupt(what) => Self::Unfit(what),
            Self::Truncated => Self::Unfit("the stream ends in the middle"),
            Self::TrailingBytes => Self::Unfit("bytes follow the end of the stream"),
            other => other,
        }
    }

    /// Whether the stream may be sound, and only beyond what this crate knows or may hold.
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

/// Why a part could not be taken.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It is not all there: this many bytes, from its beginning, are the least that is needed.
    Need(usize),
    /// It is wrong. Boxed, because this type is returned for every part, and small is fast.
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

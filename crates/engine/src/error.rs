//! Why a capture or a check failed, and what follows from it.

use cachevault_domain::{Address, FailureCode, ProbeError};
use cachevault_proto::{HandshakeError, SessionError};
use cachevault_rdb::inspect::InspectError;
use cachevault_store::{StoreError, StoreErrorKind};

/// A capture failed. Nothing of it is left in the store or on the source.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The source cannot be reached or used.
    #[error(transparent)]
    Source(#[from] ProbeError),
    /// The source refused to synchronise, or did not speak the protocol.
    #[error("`{address}`: {session}")]
    Session {
        /// The source.
        address: Address,
        /// What was wrong.
        session: SessionError,
    },
    /// The source closed the connection too soon.
    #[error(
        "`{address}` closed the connection after {received_bytes} bytes; see its log for the reason"
    )]
    Closed {
        /// The source.
        address: Address,
        /// RDB bytes received.
        received_bytes: u64,
    },
    /// The source holds what the portable version of the format cannot express.
    #[error(
        "`{address}` holds hashes with fields that expire, which the portable RDB version cannot \
         express; make the backup without --portable"
    )]
    NotPortable {
        /// The source.
        address: Address,
    },
    /// The source sent nothing for too long.
    #[error("`{address}` sent nothing for {seconds} s, after {received_bytes} bytes")]
    Stalled {
        /// The source.
        address: Address,
        /// The limit.
        seconds: u64,
        /// RDB bytes received.
        received_bytes: u64,
    },
    /// The source was busy for too long.
    #[error("gave up waiting after {seconds} s: {reason}")]
    Busy {
        /// What it was busy with, or could not bear.
        reason: String,
        /// The limit.
        seconds: u64,
    },
    /// The source cannot bear a fork.
    #[error("`{address}` was not asked for a snapshot: {reason}")]
    Unfit {
        /// The source.
        address: Address,
        /// Why not, and what to do.
        reason: String,
    },
    /// The snapshot did more to the source than it may.
    #[error(
        "the capture of `{address}` was broken off to protect it, after {received_bytes} bytes: {reason}"
    )]
    Harmful {
        /// The source.
        address: Address,
        /// What the source suffered.
        reason: String,
        /// RDB bytes received.
        received_bytes: u64,
    },
    /// The whole capture took too long.
    #[error(
        "the capture was not done after {seconds} s, the limit; {received_bytes} bytes had come"
    )]
    TooLong {
        /// The limit.
        seconds: u64,
        /// RDB bytes received.
        received_bytes: u64,
    },
    /// What came is no whole RDB.
    #[error("what `{address}` sent is damaged: {damage}")]
    Damaged {
        /// The source.
        address: Address,
        /// What is wrong with it.
        damage: InspectError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The compressor or its thread failed.
    #[error("the encoder failed: {0}")]
    Encoder(std::io::Error),
    /// It was told to stop.
    #[error("cancelled")]
    Cancelled,
}

impl CaptureError {
    /// The reason as the DCS API knows it.
    pub fn failure_code(&self) -> FailureCode {
        match self {
            Self::Stalled { .. }
            | Self::Busy { .. }
            | Self::TooLong { .. }
            | Self::Source(ProbeError::TimedOut { .. }) => FailureCode::TimedOut,
            Self::Store(error) => store_failure_code(error),
            Self::Source(_)
            | Self::Session { .. }
            | Self::Closed { .. }
            | Self::NotPortable { .. }
            | Self::Unfit { .. }
            | Self::Harmful { .. }
            | Self::Damaged { .. }
            | Self::Encoder(_)
            | Self::Cancelled => FailureCode::ToolFailed,
        }
    }

    /// Whether another attempt may succeed without anyone doing anything.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Source(error) => matches!(
                error,
                ProbeError::Refused { .. }
                    | ProbeError::Unreachable { .. }
                    | ProbeError::TimedOut { .. }
                    | ProbeError::UnknownHost { .. }
            ),
            Self::Session { session, .. } => {
                matches!(session, SessionError::Handshake(HandshakeError::NotNow(_)))
            }
            Self::Store(error) => error.kind.may_pass() || error.kind == StoreErrorKind::Damaged,
            Self::Closed { .. }
            | Self::Stalled { .. }
            | Self::Damaged { .. }
            | Self::Harmful { .. } => true,
            Self::Busy { .. }
            | Self::NotPortable { .. }
            | Self::Unfit { .. }
            | Self::TooLong { .. }
            | Self::Encoder(_)
            | Self::Cancelled => false,
        }
    }
}

/// A stored artifact is not what it should be, or could not be read.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored object differs from what was written.
    #[error(
        "the stored artifact differs from what was written: {what} is {found}, expected {expected}"
    )]
    Differs {
        /// What was compared.
        what: &'static str,
        /// What the store has.
        found: String,
        /// What was written.
        expected: String,
    },
    /// As much is stored as was written, and some of it is not what was written.
    #[error("the stored artifact has all its {size_bytes} bytes, but some of them were changed")]
    Altered {
        /// Its size.
        size_bytes: u64,
        /// What the store said.
        #[source]
        error: StoreError,
    },
    /// It cannot be decoded.
    #[error("the stored artifact cannot be decoded: {0}")]
    Undecodable(String),
}

impl VerifyError {
    /// The reason as the DCS API knows it.
    pub fn failure_code(&self) -> FailureCode {
        match self {
            // A file that is gone is no less of a loss than one that is damaged.
            Self::Store(error) if error.kind != StoreErrorKind::NotFound => {
                store_failure_code(error)
            }
            Self::Store(_) | Self::Differs { .. } | Self::Altered { .. } | Self::Undecodable(_) => {
                FailureCode::SizeUnconfirmed
            }
        }
    }

    /// Whether another attempt may succeed without anyone doing anything.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Store(error) => error.kind.may_pass() || error.kind == StoreErrorKind::NotFound,
            Self::Differs { .. } | Self::Altered { .. } | Self::Undecodable(_) => true,
        }
    }
}

/// What an error of the store is for the DCS API, whoever met it.
pub fn store_failure_code(error: &StoreError) -> FailureCode {
    match error.kind {
        StoreErrorKind::Denied => FailureCode::StoreCredentials,
        StoreErrorKind::NoSpace | StoreErrorKind::Damaged | StoreErrorKind::NoKey => {
            FailureCode::SizeUnconfirmed
        }
        StoreErrorKind::NotFound
        | StoreErrorKind::NoBucket
        | StoreErrorKind::Conflict
        | StoreErrorKind::Refused
        | StoreErrorKind::Foreign
        | StoreErrorKind::Unavailable => FailureCode::StoreUnusable,
    }
}

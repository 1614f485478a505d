//! What can go wrong with a store.

use std::io;

/// What the caller can decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// There is no such object.
    NotFound,
    /// The bucket is missing, and is not to be made.
    NoBucket,
    /// No room is left.
    NoSpace,
    /// The store denies the operation.
    Denied,
    /// An object is there already and differs.
    Conflict,
    /// A stored object is not what it should be.
    Damaged,
    /// It is encrypted, and its key cannot be had.
    NoKey,
    /// The store does not take a request as it is. Nothing is stored of it.
    Refused,
    /// It is not the store that is remembered: not mounted, or another one.
    Foreign,
    /// Anything else: an I/O error.
    Unavailable,
}

impl StoreErrorKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::NotFound,
        Self::NoBucket,
        Self::NoSpace,
        Self::Denied,
        Self::Conflict,
        Self::Damaged,
        Self::NoKey,
        Self::Refused,
        Self::Foreign,
        Self::Unavailable,
    ];

    /// The kind's name in lower case, as metrics show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::NoBucket => "no_bucket",
            Self::NoSpace => "no_space",
            Self::Denied => "denied",
            Self::Conflict => "conflict",
            Self::Damaged => "damaged",
            Self::NoKey => "no_key",
            Self::Refused => "refused",
            Self::Foreign => "foreign",
            Self::Unavailable => "unavailable",
        }
    }

    /// Whether the same call may succeed later without anyone doing anything.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Unavailable)
    }

    fn words(self) -> &'static str {
        match self {
            Self::NotFound => "not found in the store",
            Self::NoBucket => {
                "there is no such bucket; create it, or let this service do so (`store_create_bucket`)"
            }
            Self::NoSpace => "no space left in the store; free some, or give it more",
            Self::Denied => "the store denies access; check its credentials, owner and permissions",
            Self::Conflict => "another object is stored under this key",
            Self::Damaged => "what is stored differs from what was written",
            Self::NoKey => "it is encrypted and does not open",
            Self::Refused => {
                "the store does not take what it was asked; `cachevault store check` tries all that \
                 is asked of it"
            }
            Self::Foreign => {
                "it is not the store that the backups are in; mount that, or correct `store`; to \
                 use this one from now on stop the service and run `cachevault store accept`, or \
                 `cachevault catalog rebuild` where it holds the backups"
            }
            Self::Unavailable => "the store failed",
        }
    }
}

/// An operation on the store failed.
#[derive(Debug, thiserror::Error)]
#[error("{action} `{object}`: {}", .kind.words())]
pub struct StoreError {
    /// What the caller can decide by.
    pub kind: StoreErrorKind,
    /// What was being done.
    pub action: &'static str,
    /// To which object.
    pub object: String,
    /// What the store said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    pub(crate) fn new(kind: StoreErrorKind, action: &'static str, object: impl ToString) -> Self {
        Self { kind, action, object: object.to_string(), source: None }
    }

    fn read_only(action: &'static str, object: impl ToString, source: io::Error) -> Self {
        let (kind, source) = (StoreErrorKind::Unavailable, Some(ReadOnly(source).into()));
        Self { kind, action, object: object.to_string(), source }
    }

    pub(crate) fn io(action: &'static str, object: impl ToString, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::NotFound => StoreErrorKind::NotFound,
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => StoreErrorKind::NoSpace,
            io::ErrorKind::PermissionDenied => StoreErrorKind::Denied,
            // Not a matter of credentials: it is mounted so, or the kernel has found damage.
            io::ErrorKind::ReadOnlyFilesystem => {
                return Self::read_only(action, object, source);
            }
            _ => StoreErrorKind::Unavailable,
        };
        Self { kind, action, object: object.to_string(), source: Some(source.into()) }
    }
}

/// A file system that takes no writes.
#[derive(Debug, thiserror::Error)]
#[error("its file system is read-only; look for errors of the disk and mount it writable")]
struct ReadOnly(#[source] io::Error);

#[cfg(test)]
mod tests {
    use cachevault_domain::with_sources;

    use super::*;

    #[test]
    fn a_read_only_file_system_is_no_matter_of_credentials() {
        let error = StoreError::io("write", "x", io::ErrorKind::ReadOnlyFilesystem.into());
        assert_eq!(error.kind, StoreErrorKind::Unavailable);
        let text = with_sources(&error);
        assert!(text.contains("mount it writable") && !text.contains("credentials"), "{text}");
        let denied = StoreError::io("write", "x", io::ErrorKind::PermissionDenied.into());
        assert_eq!(denied.kind, StoreErrorKind::Denied);
    }
}

//! Errors of a store.

use std::io;

/// The kind of an error, by which the caller decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The object does not exist.
    NotFound,
    /// The bucket is missing, and this service may not create it.
    NoBucket,
    /// The store is full.
    NoSpace,
    /// The store denies the operation.
    Denied,
    /// Another object exists under this name.
    Conflict,
    /// A stored object is damaged.
    Damaged,
    /// The object is encrypted, and its data key is not available.
    NoKey,
    /// The store refuses a request as invalid. The request has stored nothing.
    Refused,
    /// The store is not the registered one: it is not mounted, or it is another store.
    Foreign,
    /// Any other I/O error.
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

    /// The kind's name in lower case, used as a label of metrics.
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

    /// Whether the same call may succeed later without any intervention.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Unavailable)
    }

    fn words(self) -> &'static str {
        match self {
            Self::NotFound => "not found in the store",
            Self::NoBucket => {
                "the bucket does not exist; create it, or permit this service to do so \
                 (`store_create_bucket`)"
            }
            Self::NoSpace => "no space left in the store; free or add space",
            Self::Denied => "the store denies access; check its credentials, owner and permissions",
            Self::Conflict => "another object is stored under this name",
            Self::Damaged => "the stored object differs from what was written",
            Self::NoKey => "it is encrypted and its key is not available",
            Self::Refused => {
                "the store refuses the request as invalid; run `cachevault store check` to test \
                 all kinds of requests"
            }
            Self::Foreign => {
                "it is not the store of the backups; mount that store, or correct `store`; to use \
                 this store from now on, stop the service and run `cachevault store accept`, or \
                 `cachevault catalog rebuild` if it contains the backups"
            }
            Self::Unavailable => "the store failed",
        }
    }
}

/// An operation on the store failed.
#[derive(Debug, thiserror::Error)]
#[error("{action} `{object}`: {}", .kind.words())]
pub struct StoreError {
    /// The kind, by which the caller decides.
    pub kind: StoreErrorKind,
    /// The failed action.
    pub action: &'static str,
    /// The object of the action.
    pub object: String,
    /// The error of the store.
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
            // Credentials cannot help: the file system is mounted read-only, or the kernel has
            // found damage.
            io::ErrorKind::ReadOnlyFilesystem => {
                return Self::read_only(action, object, source);
            }
            _ => StoreErrorKind::Unavailable,
        };
        Self { kind, action, object: object.to_string(), source: Some(source.into()) }
    }
}

/// The file system is read-only.
#[derive(Debug, thiserror::Error)]
#[error(
    "its file system is read-only; check the disk for errors and mount the file system \
         writable"
)]
struct ReadOnly(#[source] io::Error);

#[cfg(test)]
mod tests {
    use cachevault_domain::with_sources;

    use super::*;

    #[test]
    fn a_read_only_file_system_is_not_reported_as_denied() {
        let error = StoreError::io("write", "x", io::ErrorKind::ReadOnlyFilesystem.into());
        assert_eq!(error.kind, StoreErrorKind::Unavailable);
        let text = with_sources(&error);
        assert!(
            text.contains("mount the file system writable") && !text.contains("credentials"),
            "{text}"
        );
        let denied = StoreError::io("write", "x", io::ErrorKind::PermissionDenied.into());
        assert_eq!(denied.kind, StoreErrorKind::Denied);
    }
}

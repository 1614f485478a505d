//! Classifies the errors of an object store.

use cachevault_domain::with_sources;

use crate::{StoreError, StoreErrorKind};

/// Error codes of S3. The library keeps most of them only in its texts.
const CODES: [(&str, StoreErrorKind); 17] = [
    ("NoSuchBucket", StoreErrorKind::NoBucket),
    ("InvalidAccessKeyId", StoreErrorKind::Denied),
    ("SignatureDoesNotMatch", StoreErrorKind::Denied),
    ("ExpiredToken", StoreErrorKind::Denied),
    ("InvalidToken", StoreErrorKind::Denied),
    ("AccessDenied", StoreErrorKind::Denied),
    ("AccountProblem", StoreErrorKind::Denied),
    (SKEWED, StoreErrorKind::Denied),
    ("QuotaExceeded", StoreErrorKind::NoSpace),
    ("InsufficientStorage", StoreErrorKind::NoSpace),
    ("XMinioStorageFull", StoreErrorKind::NoSpace),
    ("EntityTooLarge", StoreErrorKind::NoSpace),
    ("BadDigest", StoreErrorKind::Damaged),
    ("InvalidPart", StoreErrorKind::Refused),
    ("EntityTooSmall", StoreErrorKind::Refused),
    ("MalformedXML", StoreErrorKind::Refused),
    ("XAmzContentSHA256Mismatch", StoreErrorKind::Damaged),
];

const SKEWED: &str = "RequestTimeTooSkewed";

/// The error of a server that refuses a request because of its date.
#[derive(Debug, thiserror::Error)]
#[error("the clocks of the server and of this machine differ too much; correct the wrong clock")]
struct Clocks(#[source] object_store::Error);

pub(super) fn failed(action: &'static str, object: &str, error: object_store::Error) -> StoreError {
    let kind = classify(&error);
    let source = match with_sources(&error).contains(SKEWED) {
        true => Clocks(error).into(),
        false => error.into(),
    };
    StoreError { kind, action, object: object.to_owned(), source: Some(source) }
}

pub(super) fn classify(error: &object_store::Error) -> StoreErrorKind {
    let text = with_sources(error);
    if let Some((_, kind)) = CODES.iter().find(|(code, _)| text.contains(code)) {
        return *kind;
    }
    match error {
        object_store::Error::NotFound { .. } => StoreErrorKind::NotFound,
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => StoreErrorKind::Denied,
        object_store::Error::AlreadyExists { .. } => StoreErrorKind::Conflict,
        // The library does not distinguish the errors of a list.
        _ if text.contains("403 Forbidden") || text.contains("401 Unauthorized") => {
            StoreErrorKind::Denied
        }
        _ => StoreErrorKind::Unavailable,
    }
}

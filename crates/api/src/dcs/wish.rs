//! Converts DCS requests to requests of the use cases.

use cachevault_app::{AppError, LinkLifetime, RequestBackup, RequestRestore};
use cachevault_domain::{RdbDialect, RestoreOptions};

use super::error::DcsError;

/// A backup request with a `remark` and a `backup_format`. Both are optional; an empty format
/// counts as absent.
pub(crate) fn backup(
    remark: Option<&str>,
    backup_format: Option<&str>,
) -> Result<RequestBackup, DcsError> {
    match backup_format {
        None | Some("") => {}
        Some(format) if format.eq_ignore_ascii_case("rdb") => {}
        Some(_) => return Err(DcsError::InvalidField("backup_format")),
    }
    let note = remark.map(str::parse).transpose().map_err(|_| DcsError::RemarkTooLong)?;
    Ok(RequestBackup { note, dialect: RdbDialect::Native })
}

/// A restore request for the required `backup_id`, with an optional `remark`.
pub(crate) fn restore(
    backup_id: Option<&str>,
    remark: Option<&str>,
) -> Result<RequestRestore, DcsError> {
    let backup = backup_id.and_then(|text| text.parse().ok());
    let backup = backup.ok_or(DcsError::InvalidField("backup_id"))?;
    let note = remark.map(str::parse).transpose().map_err(|_| DcsError::RemarkTooLong)?;
    Ok(RequestRestore { backup, options: RestoreOptions::default(), note })
}

/// The error of a restore request: an unknown backup is an invalid field of the body.
pub(crate) fn restore_error(error: AppError) -> DcsError {
    match error {
        AppError::BackupNotFound => DcsError::InvalidField("backup_id"),
        other => other.into(),
    }
}

/// The required lifetime of links.
pub(crate) fn link_lifetime(expiration: Option<i64>) -> Result<LinkLifetime, DcsError> {
    let lifetime = expiration.and_then(|seconds| LinkLifetime::from_seconds(seconds).ok());
    lifetime.ok_or(DcsError::InvalidField("expiration"))
}

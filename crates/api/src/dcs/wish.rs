//! What a client asks for, from the vendor's words into ours.

use cachevault_app::RequestBackup;
use cachevault_domain::RdbDialect;

use super::error::DcsError;

/// A backup with this `remark` and in this `backup_format`, which may be left out.
pub(crate) fn backup(
    remark: Option<&str>,
    backup_format: Option<&str>,
) -> Result<RequestBackup, DcsError> {
    match backup_format {
        None => {}
        Some(format) if format.eq_ignore_ascii_case("rdb") => {}
        Some(_) => return Err(DcsError::InvalidField("backup_format")),
    }
    let note = remark.map(str::parse).transpose().map_err(|_| DcsError::RemarkTooLong)?;
    Ok(RequestBackup { note, dialect: RdbDialect::Native })
}

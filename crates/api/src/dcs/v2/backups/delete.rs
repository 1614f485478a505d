use axum::extract::State;
use axum::http::StatusCode;

use crate::Api;
use crate::dcs::error::V2;
use crate::dcs::extract::OfBackup;
use crate::dcs::parameters::BackupPath;
use crate::dcs::v2::Error;

/// Delete a backup's files
///
/// The record stays listed as `deleted` for the configured time.
#[utoipa::path(delete, path = "/{project_id}/instances/{instance_id}/backups/{backup_id}",
    operation_id = "DeleteBackupFile", tag = "Backups", params(BackupPath),
    responses((status = 204, description = "The files are deleted")))]
// The answer is 204 without a body, unlike in v1.0: one client accepts only that.
pub(crate) async fn delete(
    State(api): State<Api>,
    OfBackup { caller, instance, backup, .. }: OfBackup<V2>,
) -> Result<StatusCode, Error> {
    api.app.remove_backup(&caller, instance, backup).await?;
    Ok(StatusCode::NO_CONTENT)
}

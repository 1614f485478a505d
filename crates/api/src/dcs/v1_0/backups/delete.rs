use axum::Json;
use axum::extract::State;

use crate::Api;
use crate::dcs::error::V1;
use crate::dcs::extract::OfBackup;
use crate::dcs::parameters::BackupPath;
use crate::dcs::v1_0::Error;
use crate::dcs::v1_0::model::BackupDeleted;

/// Delete a backup's files
///
/// The record stays listed as `deleted` for the configured time.
#[utoipa::path(delete, path = "/{project_id}/instances/{instance_id}/backups/{backup_id}",
    operation_id = "DeleteBackupFile", tag = "Backups", params(BackupPath),
    responses((status = 200, body = BackupDeleted)))]
// The answer is 200 with a body, unlike in v2: one client accepts only that.
pub(crate) async fn delete(
    State(api): State<Api>,
    OfBackup { caller, instance, backup, .. }: OfBackup<V1>,
) -> Result<Json<BackupDeleted>, Error> {
    api.app.remove_backup(&caller, instance, backup).await?;
    Ok(Json(BackupDeleted { message: "" }))
}

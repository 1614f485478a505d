use axum::Json;
use axum::extract::State;
use bytes::Bytes;

use crate::Api;
use crate::dcs::error::V2;
use crate::dcs::extract::{OfInstance, parse_body};
use crate::dcs::parameters::InstancePath;
use crate::dcs::v2::Error;
use crate::dcs::v2::model::{BackupCreated, CreateBackup};
use crate::dcs::wish;

/// Create a backup of an instance
///
/// The record is in the list before the answer is sent. The body is optional.
#[utoipa::path(post, path = "/{project_id}/instances/{instance_id}/backups",
    operation_id = "CopyInstance", tag = "Backups", params(InstancePath),
    request_body = Option<CreateBackup>, responses((status = 200, body = BackupCreated)))]
pub(crate) async fn create(
    State(api): State<Api>,
    OfInstance { caller, instance, .. }: OfInstance<V2>,
    body: Bytes,
) -> Result<Json<BackupCreated>, Error> {
    let CreateBackup { remark, backup_format } = parse_body(&body)?;
    let wish = wish::backup(remark.as_deref(), backup_format.as_deref())?;
    let backup = api.app.request_backup(&caller, instance, wish).await?;
    Ok(Json(BackupCreated { backup_id: backup.to_string() }))
}

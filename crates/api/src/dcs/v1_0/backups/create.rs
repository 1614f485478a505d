use axum::Json;
use axum::extract::State;
use bytes::Bytes;

use crate::Api;
use crate::dcs::error::V1;
use crate::dcs::extract::{OfInstance, parse_body};
use crate::dcs::v1_0::Error;
use crate::dcs::v1_0::model::{BackupCreated, CreateBackup};
use crate::dcs::wish;

pub(crate) async fn create(
    State(api): State<Api>,
    OfInstance { caller, instance, .. }: OfInstance<V1>,
    body: Bytes,
) -> Result<Json<BackupCreated>, Error> {
    let CreateBackup { remark, backup_format } = parse_body(&body)?;
    let wish = wish::backup(remark.as_deref(), backup_format.as_deref())?;
    let backup = api.app.request_backup(&caller, instance, wish).await?;
    Ok(Json(BackupCreated { backup_id: backup.to_string() }))
}

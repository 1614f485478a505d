use axum::Json;
use axum::extract::State;
use bytes::Bytes;

use crate::Api;
use crate::dcs::error::V2;
use crate::dcs::extract::{OfInstance, parse_needed_body};
use crate::dcs::parameters::InstancePath;
use crate::dcs::v2::Error;
use crate::dcs::v2::model::{CreateRestore, RestoreCreated};
use crate::dcs::wish;

/// Create a restore into an instance
///
/// The record is in the list before the answer is sent. The backup may belong to another instance
/// of the project.
#[utoipa::path(post, path = "/{project_id}/instances/{instance_id}/restores",
    operation_id = "RestoreInstance", tag = "Restores", params(InstancePath),
    request_body = CreateRestore, responses((status = 200, body = RestoreCreated)))]
pub(crate) async fn create(
    State(api): State<Api>,
    OfInstance { caller, instance, .. }: OfInstance<V2>,
    body: Bytes,
) -> Result<Json<RestoreCreated>, Error> {
    let CreateRestore { backup_id, remark } = parse_needed_body(&body)?;
    let wish = wish::restore(backup_id.as_deref(), remark.as_deref())?;
    let restore = api.app.request_restore(&caller, instance, wish).await;
    let restore = restore.map_err(wish::restore_error)?;
    Ok(Json(RestoreCreated { restore_id: restore.to_string() }))
}

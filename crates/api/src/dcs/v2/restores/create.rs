use axum::Json;
use axum::extract::State;
use bytes::Bytes;

use crate::Api;
use crate::dcs::error::V2;
use crate::dcs::extract::{OfInstance, parse_body};
use crate::dcs::v2::Error;
use crate::dcs::v2::model::{CreateRestore, RestoreCreated};
use crate::dcs::wish;

pub(crate) async fn create(
    State(api): State<Api>,
    OfInstance { caller, instance, .. }: OfInstance<V2>,
    body: Bytes,
) -> Result<Json<RestoreCreated>, Error> {
    let CreateRestore { backup_id, remark } = parse_body(&body)?;
    let wish = wish::restore(backup_id.as_deref(), remark.as_deref())?;
    let restore = api.app.request_restore(&caller, instance, wish).await;
    let restore = restore.map_err(wish::restore_error)?;
    Ok(Json(RestoreCreated { restore_id: restore.to_string() }))
}

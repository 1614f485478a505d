use axum::Json;
use axum::extract::State;
use bytes::Bytes;

use crate::Api;
use crate::dcs::error::V2;
use crate::dcs::extract::{OfInstance, parse_needed_body};
use crate::dcs::parameters::InstancePath;
use crate::dcs::password::{PasswordChanged, PasswordWish};
use crate::dcs::v2::Error;

/// Change the stored password of an instance
///
/// The server must accept the new password. The server itself does not change.
#[utoipa::path(put, path = "/{project_id}/instances/{instance_id}/password",
    operation_id = "UpdatePassword", tag = "Instances", params(InstancePath),
    request_body = PasswordWish, responses((status = 200, body = PasswordChanged)))]
pub(crate) async fn password(
    State(api): State<Api>,
    OfInstance { caller, instance, .. }: OfInstance<V2>,
    body: Bytes,
) -> Result<Json<PasswordChanged>, Error> {
    let wish: PasswordWish = parse_needed_body(&body)?;
    Ok(Json(wish.grant(&api, &caller, instance).await?))
}

use axum::Json;
use axum::extract::State;

use crate::Api;
use crate::dcs::error::V2;
use crate::dcs::extract::OfInstance;
use crate::dcs::instance::InstanceBody;
use crate::dcs::parameters::InstancePath;
use crate::dcs::v2::Error;

/// Show an instance
#[utoipa::path(get, path = "/{project_id}/instances/{instance_id}", operation_id = "ShowInstance",
    tag = "Instances", params(InstancePath), responses((status = 200, body = InstanceBody)))]
pub(crate) async fn show(
    State(api): State<Api>,
    OfInstance { caller, instance, .. }: OfInstance<V2>,
) -> Result<Json<InstanceBody>, Error> {
    let instance = api.app.get_instance(&caller, instance).await?;
    Ok(Json(InstanceBody::from(&instance)))
}

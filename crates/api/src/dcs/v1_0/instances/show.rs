use axum::Json;
use axum::extract::State;

use crate::Api;
use crate::dcs::error::V1;
use crate::dcs::extract::OfInstance;
use crate::dcs::parameters::InstancePath;
use crate::dcs::v1_0::Error;
use crate::dcs::v1_0::model::InstanceDetail;

/// Show an instance
#[utoipa::path(get, path = "/{project_id}/instances/{instance_id}", operation_id = "ShowInstance",
    tag = "Instances", params(InstancePath), responses((status = 200, body = InstanceDetail)))]
pub(crate) async fn show(
    State(api): State<Api>,
    OfInstance { caller, instance, .. }: OfInstance<V1>,
) -> Result<Json<InstanceDetail>, Error> {
    let instance = api.app.get_instance(&caller, instance).await?;
    Ok(Json(InstanceDetail::from(&instance)))
}

use axum::Json;
use axum::extract::State;

use crate::Api;
use crate::dcs::error::V1;
use crate::dcs::extract::OfInstance;
use crate::dcs::v1_0::Error;
use crate::dcs::v1_0::model::InstanceDetail;

pub(crate) async fn show(
    State(api): State<Api>,
    OfInstance { caller, instance, .. }: OfInstance<V1>,
) -> Result<Json<InstanceDetail>, Error> {
    let instance = api.app.get_instance(&caller, instance).await?;
    Ok(Json(InstanceDetail::from(&instance)))
}

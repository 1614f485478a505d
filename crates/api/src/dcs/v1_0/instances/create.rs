use axum::Json;
use axum::extract::State;
use bytes::Bytes;

use crate::Api;
use crate::dcs::error::V1;
use crate::dcs::extract::{InProject, parse_needed_body};
use crate::dcs::parameters::ProjectPath;
use crate::dcs::policy::PolicyOrText;
use crate::dcs::settings::CreateInstance;
use crate::dcs::v1_0::Error;
use crate::dcs::v1_0::model::InstancesCreated;

/// Register a running server
///
/// The service creates no servers. The request requires the field `cachevault`, which describes the
/// connection.
#[utoipa::path(post, path = "/{project_id}/instances", operation_id = "CreateInstance",
    tag = "Instances", params(ProjectPath), request_body = CreateInstance<PolicyOrText>,
    responses((status = 200, body = InstancesCreated)))]
pub(crate) async fn create(
    State(api): State<Api>,
    InProject { caller, .. }: InProject<V1>,
    body: Bytes,
) -> Result<Json<InstancesCreated>, Error> {
    let body: CreateInstance<PolicyOrText> = parse_needed_body(&body)?;
    let wish = body.wish(PolicyOrText::policy)?;
    let instance = api.app.add_instance(&caller, wish).await?;
    Ok(Json((&instance).into()))
}

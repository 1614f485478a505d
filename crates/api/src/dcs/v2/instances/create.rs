use axum::Json;
use axum::extract::State;
use bytes::Bytes;

use crate::Api;
use crate::dcs::error::V2;
use crate::dcs::extract::{InProject, parse_needed_body};
use crate::dcs::parameters::ProjectPath;
use crate::dcs::policy::PolicyWish;
use crate::dcs::settings::CreateInstance;
use crate::dcs::v2::Error;
use crate::dcs::v2::model::InstancesCreated;

/// Register a running server
///
/// The service creates no servers. The request requires the field `cachevault`, which describes the
/// connection.
#[utoipa::path(post, path = "/{project_id}/instances", operation_id = "CreateInstance",
    tag = "Instances", params(ProjectPath), request_body = CreateInstance<PolicyWish>,
    responses((status = 200, body = InstancesCreated)))]
pub(crate) async fn create(
    State(api): State<Api>,
    InProject { caller, .. }: InProject<V2>,
    body: Bytes,
) -> Result<Json<InstancesCreated>, Error> {
    let body: CreateInstance<PolicyWish> = parse_needed_body(&body)?;
    let wish = body.wish(|policy| policy.policy(None))?;
    let instance = api.app.add_instance(&caller, wish).await?;
    Ok(Json((&instance).into()))
}

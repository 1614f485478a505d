use axum::extract::State;
use axum::http::StatusCode;
use bytes::Bytes;

use crate::Api;
use crate::dcs::error::V1;
use crate::dcs::extract::{OfInstance, parse_needed_body};
use crate::dcs::parameters::InstancePath;
use crate::dcs::policy::PolicyOrText;
use crate::dcs::settings::ModifyInstance;
use crate::dcs::v1_0::Error;

/// Change an instance's name, description, maintenance window or backup policy
///
/// Omitted fields stay unchanged, also the plan of a policy that becomes `manual`.
#[utoipa::path(put, path = "/{project_id}/instances/{instance_id}", operation_id = "UpdateInstance",
    tag = "Instances", params(InstancePath), request_body = ModifyInstance<PolicyOrText>,
    responses((status = 204, description = "The instance is changed")))]
pub(crate) async fn update(
    State(api): State<Api>,
    OfInstance { caller, instance, .. }: OfInstance<V1>,
    body: Bytes,
) -> Result<StatusCode, Error> {
    let body: ModifyInstance<PolicyOrText> = parse_needed_body(&body)?;
    let change = body.change(PolicyOrText::policy)?;
    api.app.change_instance(&caller, instance, &change).await?;
    Ok(StatusCode::NO_CONTENT)
}

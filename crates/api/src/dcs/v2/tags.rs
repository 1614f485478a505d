//! `/{project_id}/instances/{instance_id}/tags`, `/{project_id}/dcs/…/tags`, `…/whitelist`

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bytes::Bytes;

use super::Error;
use crate::Api;
use crate::dcs::error::V2;
use crate::dcs::extract::{InProject, OfInstance, parse_needed_body};
use crate::dcs::figures::Whitelist;
use crate::dcs::parameters::{InstancePath, ProjectPath};
use crate::dcs::settings::{InstanceTags, ProjectTags, TagAction};

/// Show the tags of an instance
#[utoipa::path(get, path = "/{project_id}/instances/{instance_id}/tags", operation_id = "ShowTags",
    tag = "Tags", params(InstancePath), responses((status = 200, body = InstanceTags)))]
pub(crate) async fn show(
    State(api): State<Api>,
    OfInstance { caller, instance, .. }: OfInstance<V2>,
) -> Result<Json<InstanceTags>, Error> {
    let instance = api.app.get_instance(&caller, instance).await?;
    Ok(Json(instance.settings.tags.as_slice().into()))
}

/// Add tags to an instance, or remove them
#[utoipa::path(post, path = "/{project_id}/dcs/{instance_id}/tags/action",
    operation_id = "BatchCreateOrDeleteTags", tag = "Tags", params(InstancePath),
    request_body = TagAction, responses((status = 204, description = "The tags are changed")))]
pub(crate) async fn change(
    State(api): State<Api>,
    OfInstance { caller, instance, .. }: OfInstance<V2>,
    body: Bytes,
) -> Result<StatusCode, Error> {
    let change = parse_needed_body::<TagAction>(&body)?.change()?;
    api.app.change_tags(&caller, instance, &change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List the tags of a project
#[utoipa::path(get, path = "/{project_id}/dcs/tags", operation_id = "ListTagsOfTenant", tag = "Tags",
    params(ProjectPath), responses((status = 200, body = ProjectTags)))]
pub(crate) async fn list(
    State(api): State<Api>,
    InProject { caller, .. }: InProject<V2>,
) -> Result<Json<ProjectTags>, Error> {
    let tags = api.app.list_tags(&caller).await?;
    Ok(Json(tags.as_slice().into()))
}

/// Show the IP whitelist of an instance
#[utoipa::path(get, path = "/{project_id}/instance/{instance_id}/whitelist",
    operation_id = "ShowIpWhitelist", tag = "Instances", params(InstancePath),
    responses((status = 200, body = Whitelist)))]
pub(crate) async fn whitelist(
    State(api): State<Api>,
    OfInstance { caller, instance, .. }: OfInstance<V2>,
) -> Result<Json<Whitelist>, Error> {
    let instance = api.app.get_instance(&caller, instance).await?;
    Ok(Json((&instance).into()))
}

//! Custom roles of the caller's project. An administrator of the service may name another `project`
//! by id or name.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bytes::Bytes;
use cachevault_app::{AccessError, AppError, ProjectKey};
use cachevault_domain::{AccessPolicy, ActionPattern, RoleName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{self, field};
use super::error::Error;
use super::instances::{PAGE_DEFAULT, PAGE_MAX};
use super::model::PageBody;
use super::parameters::{OfProjectQuery, PageQuery, PolicyPath};
use super::path::PathId;
use crate::Api;
use crate::auth::Identity;
use crate::query::{PageStart, Query};

/// Maximum of patterns in a role. There are fewer actions than this.
const ACTIONS_MAX: usize = 64;

/// A custom role to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreatePolicyBody)]
struct CreateBody {
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    name: String,
    #[schema(max_items = 64)]
    actions: Vec<String>,
}

/// The new permissions of a custom role.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UpdatePolicyBody)]
struct UpdateBody {
    #[schema(max_items = 64)]
    actions: Vec<String>,
}

/// A custom role: the actions that it allows, as patterns.
#[derive(Serialize, ToSchema)]
#[schema(as = AccessPolicyBody)]
pub(super) struct PolicyBody {
    name: String,
    project_id: String,
    actions: Vec<String>,
    created_at: String,
    updated_at: String,
}

impl From<&AccessPolicy> for PolicyBody {
    fn from(policy: &AccessPolicy) -> Self {
        Self {
            name: policy.name.to_string(),
            project_id: policy.project.to_string(),
            actions: policy.actions.iter().map(ToString::to_string).collect(),
            created_at: policy.created_at.to_string(),
            updated_at: policy.updated_at.to_string(),
        }
    }
}

/// Create a custom role
#[utoipa::path(post, path = "/policies", operation_id = "CreatePolicy", tag = "Access",
    params(OfProjectQuery),
    request_body = CreateBody,
    responses((status = 201, body = PolicyBody)))]
pub(super) async fn create(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Result<(StatusCode, Json<PolicyBody>), Error> {
    let CreateBody { name, actions } = body::parse(&body)?;
    let (name, actions) = (field("name", &name)?, patterns(&actions)?);
    let project = project(query.as_deref());
    let policy = api.app.create_policy(&identity.caller, project.as_ref(), name, actions).await?;
    Ok((StatusCode::CREATED, Json(PolicyBody::from(&policy))))
}

/// List the custom roles of a project
#[utoipa::path(get, path = "/policies", operation_id = "ListPolicies", tag = "Access",
    params(OfProjectQuery, PageQuery),
    responses((status = 200, body = PageBody<PolicyBody>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Result<Json<PageBody<PolicyBody>>, Error> {
    let page = Query::parse(query.as_deref()).page(PageStart::Zero, PAGE_DEFAULT, PAGE_MAX)?;
    let project = project(query.as_deref());
    let listing = api.app.list_policies(&identity.caller, project.as_ref(), page).await?;
    let items = listing.items.iter().map(PolicyBody::from).collect();
    Ok(Json(PageBody { items, total: listing.total }))
}

/// Show a custom role
#[utoipa::path(get, path = "/policies/{policy}", operation_id = "ShowPolicy", tag = "Access",
    params(PolicyPath, OfProjectQuery),
    responses((status = 200, body = PolicyBody)))]
pub(super) async fn show(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    RawQuery(query): RawQuery,
    PathId(policy): PathId,
) -> Result<Json<PolicyBody>, Error> {
    let project = project(query.as_deref());
    let found = api.app.get_policy(&identity.caller, project.as_ref(), &key(&policy)?).await?;
    Ok(Json(PolicyBody::from(&found)))
}

/// Change the permissions of a custom role
#[utoipa::path(put, path = "/policies/{policy}", operation_id = "UpdatePolicy", tag = "Access",
    params(PolicyPath, OfProjectQuery),
    request_body = UpdateBody,
    responses((status = 200, body = PolicyBody)))]
pub(super) async fn update(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    RawQuery(query): RawQuery,
    PathId(policy): PathId,
    body: Bytes,
) -> Result<Json<PolicyBody>, Error> {
    let UpdateBody { actions } = body::parse(&body)?;
    let (project, actions) = (project(query.as_deref()), patterns(&actions)?);
    let key = key(&policy)?;
    let changed = api.app.update_policy(&identity.caller, project.as_ref(), &key, &actions).await?;
    Ok(Json(PolicyBody::from(&changed)))
}

/// Delete a custom role that is not in use
#[utoipa::path(delete, path = "/policies/{policy}", operation_id = "RemovePolicy", tag = "Access",
    params(PolicyPath, OfProjectQuery),
    responses((status = 204, description = "The custom role is deleted")))]
pub(super) async fn remove(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    RawQuery(query): RawQuery,
    PathId(policy): PathId,
) -> Result<StatusCode, Error> {
    let project = project(query.as_deref());
    api.app.remove_policy(&identity.caller, project.as_ref(), &key(&policy)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn project(query: Option<&str>) -> Option<ProjectKey> {
    Query::parse(query).project().map(ProjectKey::of)
}

fn patterns(actions: &[String]) -> Result<Vec<ActionPattern>, Error> {
    if actions.len() > ACTIONS_MAX {
        return Err(Error::BadRequest(format!("`actions` has at most {ACTIONS_MAX} entries")));
    }
    actions.iter().map(|action| field("actions", action)).collect()
}

fn key(text: &str) -> Result<RoleName, Error> {
    text.parse().map_err(|_| Error::App(AppError::Access(AccessError::PolicyNotFound)))
}

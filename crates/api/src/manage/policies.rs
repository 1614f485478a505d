//! `/api/v1/policies`: of the caller's project, or for an administrator of the service of the one
//! that `project` names, by its id or its name.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bytes::Bytes;
use cachevault_app::{AccessError, AppError, ProjectKey};
use cachevault_domain::{AccessPolicy, ActionPattern, RoleName};
use serde::{Deserialize, Serialize};

use super::body::{self, field};
use super::error::Error;
use super::instances::{PAGE_DEFAULT, PAGE_MAX};
use super::model::PageBody;
use super::path::PathId;
use crate::Api;
use crate::auth::Identity;
use crate::query::{PageStart, Query};

/// More patterns than there are actions say nothing that fewer would not.
const ACTIONS_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    name: String,
    actions: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    actions: Vec<String>,
}

#[derive(Serialize)]
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

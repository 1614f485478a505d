//! `/api/v1/projects`. In a path a project is named by its id or its name.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bytes::Bytes;
use cachevault_app::{ProjectChanges, ProjectKey};
use cachevault_domain::Project;
use serde::{Deserialize, Serialize};

use super::body::{self, field, field_if};
use super::error::Error;
use super::instances::{PAGE_DEFAULT, PAGE_MAX};
use super::model::PageBody;
use super::path::PathId;
use crate::Api;
use crate::auth::Identity;
use crate::query::{PageStart, Query};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    name: Option<String>,
    enabled: Option<bool>,
}

#[derive(Serialize)]
pub(super) struct ProjectBody {
    id: String,
    name: String,
    enabled: bool,
    created_at: String,
}

impl From<&Project> for ProjectBody {
    fn from(project: &Project) -> Self {
        Self {
            id: project.id.to_string(),
            name: project.name.to_string(),
            enabled: project.enabled,
            created_at: project.created_at.to_string(),
        }
    }
}

pub(super) async fn create(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    body: Bytes,
) -> Result<(StatusCode, Json<ProjectBody>), Error> {
    let CreateBody { name } = body::parse(&body)?;
    let project = api.app.create_project(&identity.caller, field("name", &name)?).await?;
    Ok((StatusCode::CREATED, Json(ProjectBody::from(&project))))
}

pub(super) async fn list(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Result<Json<PageBody<ProjectBody>>, Error> {
    let page = Query::parse(query.as_deref()).page(PageStart::Zero, PAGE_DEFAULT, PAGE_MAX)?;
    let listing = api.app.list_projects(&identity.caller, page).await?;
    let items = listing.items.iter().map(ProjectBody::from).collect();
    Ok(Json(PageBody { items, total: listing.total }))
}

pub(super) async fn show(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(project): PathId,
) -> Result<Json<ProjectBody>, Error> {
    let project = api.app.get_project(&identity.caller, &ProjectKey::of(&project)).await?;
    Ok(Json(ProjectBody::from(&project)))
}

pub(super) async fn update(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(project): PathId,
    body: Bytes,
) -> Result<Json<ProjectBody>, Error> {
    let UpdateBody { name, enabled } = body::parse(&body)?;
    let changes = ProjectChanges { name: field_if("name", name.as_deref())?, enabled };
    let key = ProjectKey::of(&project);
    let project = api.app.update_project(&identity.caller, &key, &changes).await?;
    Ok(Json(ProjectBody::from(&project)))
}

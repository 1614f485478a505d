//! `/api/v1/projects`. Paths name a project by its id or name.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bytes::Bytes;
use cachevault_app::{ProjectChanges, ProjectKey};
use cachevault_domain::Project;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{self, field, field_if};
use super::error::Error;
use super::instances::{PAGE_DEFAULT, PAGE_MAX};
use super::model::PageBody;
use super::parameters::{PageQuery, ProjectPath};
use super::path::PathId;
use crate::Api;
use crate::auth::Identity;
use crate::query::{PageStart, Query};

/// A project to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreateProjectBody)]
struct CreateBody {
    #[schema(pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    name: String,
}

/// Changes to a project. Omitted and null fields stay unchanged.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UpdateProjectBody)]
struct UpdateBody {
    #[schema(pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    name: Option<String>,
    enabled: Option<bool>,
}

/// A tenant.
#[derive(Serialize, ToSchema)]
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

/// Create a project; for administrators of the service
#[utoipa::path(post, path = "/projects", operation_id = "CreateProject", tag = "Access",
    request_body = CreateBody,
    responses((status = 201, body = ProjectBody)))]
pub(super) async fn create(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    body: Bytes,
) -> Result<(StatusCode, Json<ProjectBody>), Error> {
    let CreateBody { name } = body::parse(&body)?;
    let project = api.app.create_project(&identity.caller, field("name", &name)?).await?;
    Ok((StatusCode::CREATED, Json(ProjectBody::from(&project))))
}

/// List the projects that the caller may see
#[utoipa::path(get, path = "/projects", operation_id = "ListProjects", tag = "Access",
    params(PageQuery),
    responses((status = 200, body = PageBody<ProjectBody>)))]
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

/// Show a project
#[utoipa::path(get, path = "/projects/{project}", operation_id = "ShowProject", tag = "Access",
    params(ProjectPath),
    responses((status = 200, body = ProjectBody)))]
pub(super) async fn show(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(project): PathId,
) -> Result<Json<ProjectBody>, Error> {
    let project = api.app.get_project(&identity.caller, &ProjectKey::of(&project)).await?;
    Ok(Json(ProjectBody::from(&project)))
}

/// Rename, disable or enable a project; for administrators of the service
#[utoipa::path(patch, path = "/projects/{project}", operation_id = "UpdateProject", tag = "Access",
    params(ProjectPath),
    request_body = UpdateBody,
    responses((status = 200, body = ProjectBody)))]
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

//! `/api/v1/credentials`: credentials of the caller's project. An administrator of the service may
//! name another `project` by id or name.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bytes::Bytes;
use cachevault_app::{
    AccessError, AppError, CreateCredential, CredentialChanges, ProjectKey, ShownCredential,
};
use cachevault_domain::{AccessKey, Credential};
use jiff::SignedDuration;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{self, WithSecret, field, field_if, given};
use super::error::Error;
use super::instances::{PAGE_DEFAULT, PAGE_MAX};
use super::model::PageBody;
use super::parameters::{AccessKeyPath, OfProjectQuery, PageQuery};
use super::path::PathId;
use super::users;
use crate::Api;
use crate::auth::Identity;
use crate::query::{PageStart, Query};

/// A credential to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreateCredentialBody)]
struct CreateBody {
    project: Option<String>,
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    role: String,
    user: Option<String>,
    #[schema(max_length = 128)]
    description: Option<String>,
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    #[serde(default)]
    administers_service: bool,
}

/// Changes to a credential. Omitted fields stay unchanged; null removes a description or an expiry.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UpdateCredentialBody)]
struct UpdateBody {
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    role: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 128)]
    description: Option<Option<String>>,
    enabled: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Option<String>>,
}

/// The lifetime of the old credential after a rotation.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
struct RotateBody {
    old_works_for_seconds: Option<u32>,
}

/// A credential without its secret.
#[derive(Serialize, ToSchema)]
pub(super) struct CredentialBody {
    access_key: String,
    project_id: String,
    role: String,
    user_id: Option<String>,
    user_name: Option<String>,
    description: Option<String>,
    enabled: bool,
    administers_service: bool,
    created_at: String,
    expires_at: Option<String>,
}

impl From<&Credential> for CredentialBody {
    fn from(credential: &Credential) -> Self {
        let user = credential.user.as_ref();
        Self {
            access_key: credential.access_key.to_string(),
            project_id: credential.project.to_string(),
            role: credential.role.to_string(),
            user_id: user.map(|user| user.id.to_string()),
            user_name: user.map(|user| user.name.to_string()),
            description: credential.description.as_ref().map(|text| text.as_str().to_owned()),
            enabled: credential.enabled,
            administers_service: credential.administers_service,
            created_at: credential.created_at.to_string(),
            expires_at: credential.expires_at.map(|moment| moment.to_string()),
        }
    }
}

type Shown = (StatusCode, Json<WithSecret<CredentialBody>>);

fn shown(shown: &ShownCredential) -> Shown {
    let secret_key = shown.secret_key.expose_secret().to_owned();
    let body = WithSecret { thing: CredentialBody::from(&shown.credential), secret_key };
    (StatusCode::CREATED, Json(body))
}

/// Create a credential; the answer contains its secret once
#[utoipa::path(post, path = "/credentials", operation_id = "CreateCredential", tag = "Access",
    request_body = CreateBody,
    responses((status = 201, body = WithSecret<CredentialBody>)))]
pub(super) async fn create(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    body: Bytes,
) -> Result<Shown, Error> {
    let body: CreateBody = body::parse(&body)?;
    let wish = CreateCredential {
        project: body.project.as_deref().map(ProjectKey::of),
        role: field("role", &body.role)?,
        user: body.user.as_deref().map(users::key).transpose()?,
        description: field_if("description", body.description.as_deref())?,
        expires_at: field_if("expires_at", body.expires_at.as_deref())?,
        administers_service: body.administers_service,
    };
    Ok(shown(&api.app.create_credential(&identity.caller, wish).await?))
}

/// List the credentials of a project
#[utoipa::path(get, path = "/credentials", operation_id = "ListCredentials", tag = "Access",
    params(OfProjectQuery, PageQuery),
    responses((status = 200, body = PageBody<CredentialBody>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Result<Json<PageBody<CredentialBody>>, Error> {
    let query = Query::parse(query.as_deref());
    let page = query.page(PageStart::Zero, PAGE_DEFAULT, PAGE_MAX)?;
    let project = query.project().map(ProjectKey::of);
    let listing = api.app.list_credentials(&identity.caller, project.as_ref(), page).await?;
    let items = listing.items.iter().map(CredentialBody::from).collect();
    Ok(Json(PageBody { items, total: listing.total }))
}

/// Show a credential, without its secret
#[utoipa::path(get, path = "/credentials/{access_key}", operation_id = "ShowCredential", tag = "Access",
    params(AccessKeyPath),
    responses((status = 200, body = CredentialBody)))]
pub(super) async fn show(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(access_key): PathId,
) -> Result<Json<CredentialBody>, Error> {
    let found = api.app.get_credential(&identity.caller, &key(&access_key)?).await?;
    Ok(Json(CredentialBody::from(&found)))
}

/// Change a credential
#[utoipa::path(patch, path = "/credentials/{access_key}", operation_id = "UpdateCredential", tag = "Access",
    params(AccessKeyPath),
    request_body = UpdateBody,
    responses((status = 200, body = CredentialBody)))]
pub(super) async fn update(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(access_key): PathId,
    body: Bytes,
) -> Result<Json<CredentialBody>, Error> {
    let UpdateBody { role, description, enabled, expires_at } = body::parse(&body)?;
    let changes = CredentialChanges {
        role: field_if("role", role.as_deref())?,
        description: description.map(|d| field_if("description", d.as_deref())).transpose()?,
        enabled,
        expires_at: expires_at.map(|at| field_if("expires_at", at.as_deref())).transpose()?,
    };
    let key = key(&access_key)?;
    let changed = api.app.update_credential(&identity.caller, &key, &changes).await?;
    Ok(Json(CredentialBody::from(&changed)))
}

/// Create a credential that replaces another; the answer contains its secret once
///
/// The new credential keeps the expiry of the old one. An expired credential is refused.
#[utoipa::path(post, path = "/credentials/{access_key}/rotate", operation_id = "RotateCredential", tag = "Access",
    params(AccessKeyPath),
    request_body = Option<RotateBody>,
    responses((status = 201, body = WithSecret<CredentialBody>)))]
pub(super) async fn rotate(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(access_key): PathId,
    body: Bytes,
) -> Result<Shown, Error> {
    let body = if body.is_empty() { RotateBody::default() } else { body::parse(&body)? };
    let old_works_for =
        body.old_works_for_seconds.map(|seconds| SignedDuration::from_secs(seconds.into()));
    let key = key(&access_key)?;
    Ok(shown(&api.app.rotate_credential(&identity.caller, &key, old_works_for).await?))
}

/// Delete a credential
#[utoipa::path(delete, path = "/credentials/{access_key}", operation_id = "RemoveCredential", tag = "Access",
    params(AccessKeyPath),
    responses((status = 204, description = "The credential is deleted")))]
pub(super) async fn remove(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(access_key): PathId,
) -> Result<StatusCode, Error> {
    api.app.remove_credential(&identity.caller, &key(&access_key)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn key(text: &str) -> Result<AccessKey, Error> {
    text.parse().map_err(|_| Error::App(AppError::Access(AccessError::CredentialNotFound)))
}

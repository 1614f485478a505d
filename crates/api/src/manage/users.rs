//! `/api/v1/users`. Paths name a user by its id or name.

use axum::extract::{Path, RawQuery, State};
use axum::http::{Extensions, StatusCode};
use axum::{Extension, Json};
use bytes::Bytes;
use cachevault_app::{
    AccessError, AppError, CreateUser, ProjectKey, UpdateUser, UserDetail, UserKey,
};
use cachevault_domain::{Grant, Subject, User};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{self, field, field_if};
use super::error::Error;
use super::instances::{PAGE_DEFAULT, PAGE_MAX};
use super::model::PageBody;
use super::parameters::{PageQuery, ProjectPath, UserPath};
use super::path::PathId;
use crate::Api;
use crate::auth::Identity;
use crate::client::client_address;
use crate::query::{PageStart, Query};
use crate::throttle::Target;

/// A user to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreateUserBody)]
struct CreateBody {
    #[schema(pattern = "^[A-Za-z0-9_.@+-]{1,64}$")]
    name: String,
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    #[serde(default)]
    administers_service: bool,
}

/// Changes to a user. Omitted and null fields stay unchanged.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UpdateUserBody)]
struct UpdateBody {
    #[schema(pattern = "^[A-Za-z0-9_.@+-]{1,64}$")]
    name: Option<String>,
    #[schema(value_type = Option<String>, format = Password)]
    password: Option<SecretString>,
    enabled: Option<bool>,
    administers_service: Option<bool>,
}

/// A role to grant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GrantRoleBody {
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    role: String,
}

/// A change of the caller's own password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PasswordBody {
    #[schema(value_type = String, format = Password)]
    current: SecretString,
    #[schema(value_type = String, format = Password)]
    new: SecretString,
}

/// A user who signs in with a password.
#[derive(Serialize, ToSchema)]
pub(super) struct UserBody {
    id: String,
    name: String,
    enabled: bool,
    administers_service: bool,
    created_at: String,
}

/// A user with its roles.
#[derive(Serialize, ToSchema)]
pub(super) struct UserDetailBody {
    #[serde(flatten)]
    user: UserBody,
    grants: Vec<GrantBody>,
}

/// The role of a user in a project.
#[derive(Serialize, ToSchema)]
struct GrantBody {
    project_id: String,
    project_name: String,
    role: String,
}

impl From<&User> for UserBody {
    fn from(user: &User) -> Self {
        Self {
            id: user.id.to_string(),
            name: user.name.to_string(),
            enabled: user.enabled,
            administers_service: user.administers_service,
            created_at: user.created_at.to_string(),
        }
    }
}

impl From<&UserDetail> for UserDetailBody {
    fn from(detail: &UserDetail) -> Self {
        let grant = |grant: &Grant| GrantBody {
            project_id: grant.project.id.to_string(),
            project_name: grant.project.name.to_string(),
            role: grant.role.to_string(),
        };
        Self { user: (&detail.user).into(), grants: detail.grants.iter().map(grant).collect() }
    }
}

/// Create a user without any role; for administrators of the service
#[utoipa::path(post, path = "/users", operation_id = "CreateUser", tag = "Access",
    request_body = CreateBody,
    responses((status = 201, body = UserDetailBody)))]
pub(super) async fn create(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    body: Bytes,
) -> Result<(StatusCode, Json<UserDetailBody>), Error> {
    let CreateBody { name, password, administers_service } = body::parse(&body)?;
    let wish = CreateUser { name: field("name", &name)?, password, administers_service };
    let detail = api.app.create_user(&identity.caller, wish).await?;
    Ok((StatusCode::CREATED, Json(UserDetailBody::from(&detail))))
}

/// List users; for administrators of the service
#[utoipa::path(get, path = "/users", operation_id = "ListUsers", tag = "Access",
    params(PageQuery),
    responses((status = 200, body = PageBody<UserBody>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Result<Json<PageBody<UserBody>>, Error> {
    let page = Query::parse(query.as_deref()).page(PageStart::Zero, PAGE_DEFAULT, PAGE_MAX)?;
    let listing = api.app.list_users(&identity.caller, page).await?;
    let items = listing.items.iter().map(UserBody::from).collect();
    Ok(Json(PageBody { items, total: listing.total }))
}

/// Show a user with its roles; for administrators of the service
#[utoipa::path(get, path = "/users/{user}", operation_id = "ShowUser", tag = "Access",
    params(UserPath),
    responses((status = 200, body = UserDetailBody)))]
pub(super) async fn show(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(user): PathId,
) -> Result<Json<UserDetailBody>, Error> {
    let detail = api.app.get_user(&identity.caller, &key(&user)?).await?;
    Ok(Json(UserDetailBody::from(&detail)))
}

/// Change a user; for administrators of the service
#[utoipa::path(patch, path = "/users/{user}", operation_id = "UpdateUser", tag = "Access",
    params(UserPath),
    request_body = UpdateBody,
    responses((status = 200, body = UserDetailBody)))]
pub(super) async fn update(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(user): PathId,
    body: Bytes,
) -> Result<Json<UserDetailBody>, Error> {
    let UpdateBody { name, password, enabled, administers_service } = body::parse(&body)?;
    let name = field_if("name", name.as_deref())?;
    let wish = UpdateUser { name, password, enabled, administers_service };
    let detail = api.app.update_user(&identity.caller, &key(&user)?, wish).await?;
    Ok(Json(UserDetailBody::from(&detail)))
}

/// Delete a user with its roles, tokens and credentials; for administrators of the service
#[utoipa::path(delete, path = "/users/{user}", operation_id = "RemoveUser", tag = "Access",
    params(UserPath),
    responses((status = 204, description = "The user is deleted")))]
pub(super) async fn remove(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(user): PathId,
) -> Result<StatusCode, Error> {
    api.app.remove_user(&identity.caller, &key(&user)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Grant a user a role in a project and replace the previous role; for administrators of the
/// service
#[utoipa::path(put, path = "/users/{user}/grants/{project}", operation_id = "SetGrant", tag = "Access",
    params(UserPath, ProjectPath),
    request_body = GrantRoleBody,
    responses((status = 200, body = UserDetailBody)))]
pub(super) async fn set_grant(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    Path((user, project)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<UserDetailBody>, Error> {
    let GrantRoleBody { role } = body::parse(&body)?;
    let (role, project) = (field("role", &role)?, ProjectKey::of(&project));
    let detail = api.app.set_grant(&identity.caller, &key(&user)?, &project, &role).await?;
    Ok(Json(UserDetailBody::from(&detail)))
}

/// Revoke a user's role in a project; for administrators of the service
#[utoipa::path(delete, path = "/users/{user}/grants/{project}", operation_id = "RemoveGrant", tag = "Access",
    params(UserPath, ProjectPath),
    responses((status = 204, description = "The user has no role in the project")))]
pub(super) async fn remove_grant(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    Path((user, project)): Path<(String, String)>,
) -> Result<StatusCode, Error> {
    let project = ProjectKey::of(&project);
    api.app.remove_grant(&identity.caller, &key(&user)?, &project).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Change the caller's own password
#[utoipa::path(post, path = "/password", operation_id = "ChangeOwnPassword", tag = "Access",
    request_body = PasswordBody,
    responses((status = 204, description = "The password is changed, and all tokens are revoked")))]
pub(super) async fn change_own_password(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    extensions: Extensions,
    body: Bytes,
) -> Result<StatusCode, Error> {
    let PasswordBody { current, new } = body::parse(&body)?;
    // A stolen token must not help to guess the password.
    let target = match identity.caller.subject() {
        Subject::User(user) => Some(Target::User(user.id.clone())),
        Subject::Key { .. } | Subject::Service => None,
    };
    let refused = |_| Error::App(AppError::Access(AccessError::SignInRefused));
    let address = client_address(&extensions);
    let turn = api.app.password_turn().await?;
    api.throttle.check(target.as_ref(), address, api.app.clock.now()).map_err(refused)?;
    let proven = api.app.prove_own_password(&identity.caller, current, turn).await;
    if let Ok(_) | Err(AppError::Access(AccessError::SignInRefused)) = &proven {
        // Record the attempt before any change. Parallel attempts beyond the limit must gain
        // nothing.
        let (now, is_right) = (api.app.clock.now(), proven.is_ok());
        api.throttle.settle(target.as_ref(), address, now, is_right).map_err(refused)?;
    }
    api.app.change_own_password(proven?, new).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Parses a user's id, otherwise its name.
pub(super) fn key(text: &str) -> Result<UserKey, Error> {
    let name = || text.parse().map(UserKey::Name);
    let key = text.parse().map(UserKey::Id).or_else(|_| name());
    key.map_err(|_| Error::App(AppError::Access(AccessError::UserNotFound)))
}

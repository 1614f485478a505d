use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bytes::Bytes;
use cachevault_app::{AddInstance, AppError, FirstSettings};
use cachevault_domain::{InstanceFilter, InstanceId};

use super::body;
use super::error::Error;
use super::model::{AddInstanceBody, InstanceBody, PageBody};
use super::parameters::{BackupsOfRemoved, InstancePath, InstancesQuery};
use super::path::PathId;
use super::settings::ChangeInstanceBody;
use crate::Api;
use crate::auth::Identity;
use crate::query::{self, PageStart, Query};

/// Default and maximum page size of the lists under `/api/v1`.
pub(super) const PAGE_DEFAULT: u32 = 100;
pub(super) const PAGE_MAX: u32 = 1000;

/// Register a running server
///
/// The server is probed first; the error gives the reason when it cannot be registered.
#[utoipa::path(post, path = "/instances", operation_id = "AddInstance", tag = "Instances",
    request_body = AddInstanceBody,
    responses((status = 201, body = InstanceBody)))]
pub(super) async fn add(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    body: Bytes,
) -> Result<(StatusCode, Json<InstanceBody>), Error> {
    let body: AddInstanceBody = body::parse(&body)?;
    let name = body.name.parse().map_err(AppError::InvalidName)?;
    let target = body.target().map_err(AppError::InvalidConnection)?;
    let instance = api
        .app
        .add_instance(
            &identity.caller,
            AddInstance { name, target, settings: FirstSettings::default() },
        )
        .await?;
    Ok((StatusCode::CREATED, Json(InstanceBody::from(&instance))))
}

/// List instances, newest first
#[utoipa::path(get, path = "/instances", operation_id = "ListInstances", tag = "Instances",
    params(InstancesQuery),
    responses((status = 200, body = PageBody<InstanceBody>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Result<Json<PageBody<InstanceBody>>, Error> {
    let query = Query::parse(query.as_deref());
    let page = query.page(PageStart::Zero, PAGE_DEFAULT, PAGE_MAX)?;
    let filter = InstanceFilter { name: query.name(), ..InstanceFilter::default() };
    let listing = api.app.list_instances(&identity.caller, Some(&filter), page).await?;
    let items = listing.items.iter().map(InstanceBody::from).collect();
    Ok(Json(PageBody { items, total: listing.total }))
}

/// Show an instance
#[utoipa::path(get, path = "/instances/{instance_id}", operation_id = "ShowInstance", tag = "Instances",
    params(InstancePath),
    responses((status = 200, body = InstanceBody)))]
pub(super) async fn show(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(instance): PathId,
) -> Result<Json<InstanceBody>, Error> {
    let instance = api.app.get_instance(&identity.caller, parse(&instance)?).await?;
    Ok(Json(InstanceBody::from(&instance)))
}

/// Change an instance's name, description, maintenance window, backup policy or connection
///
/// Omitted fields stay unchanged. A changed connection is probed first, and takes effect only if
/// the server answers. The server itself never changes. The address cannot change during a restore.
#[utoipa::path(patch, path = "/instances/{instance_id}", operation_id = "ChangeInstance", tag = "Instances",
    params(InstancePath),
    request_body = ChangeInstanceBody,
    responses((status = 200, body = InstanceBody)))]
pub(super) async fn change(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(instance): PathId,
    body: Bytes,
) -> Result<Json<InstanceBody>, Error> {
    let instance = parse(&instance)?;
    let body: ChangeInstanceBody = body::parse(&body)?;
    let change = body.change().map_err(Error::BadRequest)?;
    let (caller, connection) = (&identity.caller, body.connection());
    if connection.is_empty() {
        api.app.change_instance(caller, instance, &change).await?;
    } else {
        api.app.change_connection(caller, instance, connection, change).await?;
    }
    let instance = api.app.get_instance(&identity.caller.for_answer(), instance).await?;
    Ok(Json(InstanceBody::from(&instance)))
}

/// Remove an instance
///
/// The server itself does not change. The parameter `backups` is required while backups have files.
/// Kept backups remain accessible by their ids and by the instance's id.
#[utoipa::path(delete, path = "/instances/{instance_id}", operation_id = "RemoveInstance", tag = "Instances",
    params(InstancePath, BackupsOfRemoved),
    responses((status = 204, description = "The instance is removed")))]
pub(super) async fn remove(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(instance): PathId,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, Error> {
    let (instance, caller) = (parse(&instance)?, &identity.caller);
    match Query::parse(query.as_deref()).backups_of_removed()? {
        None => api.app.remove_instance(caller, instance).await?,
        Some(query::BackupsOfRemoved::Delete) => {
            api.app.remove_instance_with_backups(caller, instance).await?;
        }
        Some(query::BackupsOfRemoved::Keep) => {
            api.app.remove_instance_keeping_backups(caller, instance).await?;
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn parse(instance: &str) -> Result<InstanceId, Error> {
    instance.parse().map_err(|_| Error::App(AppError::InstanceNotFound))
}

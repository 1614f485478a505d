use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bytes::Bytes;
use cachevault_app::{AppError, RequestRestore};
use cachevault_domain::{RestoreFilter, RestoreId};

use super::body;
use super::error::Error;
use super::instances::{self, PAGE_DEFAULT, PAGE_MAX};
use super::model::{PageBody, PlanBody, RestoreBody, RestoreWishBody};
use super::parameters::{InstancePath, PageQuery, RestorePath};
use super::path::PathId;
use crate::Api;
use crate::auth::Identity;
use crate::query::{PageStart, Query};

/// Show the plan of a restore
#[utoipa::path(post, path = "/instances/{instance_id}/restores/plan", operation_id = "PlanRestore", tag = "Restores",
    params(InstancePath),
    request_body = RestoreWishBody,
    responses((status = 200, body = PlanBody)))]
pub(super) async fn plan(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(instance): PathId,
    body: Bytes,
) -> Result<Json<PlanBody>, Error> {
    let instance = instances::parse(&instance)?;
    let RequestRestore { backup, options, .. } = parse_body(&body)?;
    let plan = api.app.plan_restore(&identity.caller, instance, backup, &options).await?;
    Ok(Json((&plan).into()))
}

/// Create a restore into an instance
#[utoipa::path(post, path = "/instances/{instance_id}/restores", operation_id = "CreateRestore", tag = "Restores",
    params(InstancePath),
    request_body = RestoreWishBody,
    responses((status = 201, body = RestoreBody)))]
pub(super) async fn create(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(instance): PathId,
    body: Bytes,
) -> Result<(StatusCode, Json<RestoreBody>), Error> {
    let instance = instances::parse(&instance)?;
    let id = api.app.request_restore(&identity.caller, instance, parse_body(&body)?).await?;
    let restore = api.app.get_restore(&identity.caller.for_answer(), id).await?;
    Ok((StatusCode::CREATED, Json((&restore).into())))
}

/// List the restores into an instance, newest first
#[utoipa::path(get, path = "/instances/{instance_id}/restores", operation_id = "ListRestores", tag = "Restores",
    params(InstancePath, PageQuery),
    responses((status = 200, body = PageBody<RestoreBody>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(instance): PathId,
    RawQuery(query): RawQuery,
) -> Result<Json<PageBody<RestoreBody>>, Error> {
    let instance = instances::parse(&instance)?;
    let page = Query::parse(query.as_deref()).page(PageStart::Zero, PAGE_DEFAULT, PAGE_MAX)?;
    let filter = RestoreFilter::default();
    let listing = api.app.list_restores(&identity.caller, instance, filter, page).await?;
    let items = listing.items.iter().map(RestoreBody::from).collect();
    Ok(Json(PageBody { items, total: listing.total }))
}

/// Show a restore
#[utoipa::path(get, path = "/restores/{restore_id}", operation_id = "ShowRestore", tag = "Restores",
    params(RestorePath),
    responses((status = 200, body = RestoreBody)))]
pub(super) async fn show(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(restore): PathId,
) -> Result<Json<RestoreBody>, Error> {
    let id: RestoreId = restore.parse().map_err(|_| AppError::RestoreNotFound)?;
    let restore = api.app.get_restore(&identity.caller, id).await?;
    Ok(Json((&restore).into()))
}

/// Cancel a restore before it changes its target
///
/// A waiting restore is cancelled before the answer, a running one within seconds. The failure's
/// reason names the caller. After the first change to the target, the answer is
/// `restore_touched_target`.
#[utoipa::path(post, path = "/restores/{restore_id}/cancel", operation_id = "CancelRestore", tag = "Restores",
    params(RestorePath),
    responses((status = 202, body = RestoreBody)))]
pub(super) async fn cancel(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(restore): PathId,
) -> Result<(StatusCode, Json<RestoreBody>), Error> {
    let id: RestoreId = restore.parse().map_err(|_| AppError::RestoreNotFound)?;
    api.app.cancel_restore(&identity.caller, id).await?;
    let restore = api.app.get_restore(&identity.caller.for_answer(), id).await?;
    Ok((StatusCode::ACCEPTED, Json((&restore).into())))
}

fn parse_body(body: &Bytes) -> Result<RequestRestore, Error> {
    let body: RestoreWishBody = body::parse(body)?;
    body.wish().map_err(Error::BadRequest)
}

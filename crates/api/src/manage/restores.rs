use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bytes::Bytes;
use cachevault_app::{AppError, RequestRestore};
use cachevault_domain::{RestoreFilter, RestoreId};

use super::error::Error;
use super::instances::{self, PAGE_DEFAULT, PAGE_MAX};
use super::model::{PageBody, PlanBody, RestoreBody, RestoreWishBody};
use super::path::PathId;
use crate::Api;
use crate::auth::Identity;
use crate::query::{PageStart, Query};

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

pub(super) async fn create(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(instance): PathId,
    body: Bytes,
) -> Result<(StatusCode, Json<RestoreBody>), Error> {
    let instance = instances::parse(&instance)?;
    let id = api.app.request_restore(&identity.caller, instance, parse_body(&body)?).await?;
    let restore = api.app.get_restore(&identity.caller, id).await?;
    Ok((StatusCode::CREATED, Json((&restore).into())))
}

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

pub(super) async fn show(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(restore): PathId,
) -> Result<Json<RestoreBody>, Error> {
    let id: RestoreId = restore.parse().map_err(|_| AppError::RestoreNotFound)?;
    let restore = api.app.get_restore(&identity.caller, id).await?;
    Ok(Json((&restore).into()))
}

fn parse_body(body: &Bytes) -> Result<RequestRestore, Error> {
    let body: RestoreWishBody = serde_json::from_slice(body)
        .map_err(|e| Error::BadRequest(format!("the body is not what is expected: {e}")))?;
    body.wish().map_err(Error::BadRequest)
}

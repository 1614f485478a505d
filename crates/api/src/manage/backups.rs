use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use bytes::Bytes;
use cachevault_app::{AppError, LinkLifetime, RequestBackup};
use cachevault_domain::{Action, BackupFilter, BackupId, RdbDialect};
use serde::de::DeserializeOwned;

use super::body;
use super::error::Error;
use super::instances::{self, PAGE_DEFAULT, PAGE_MAX};
use super::model::{
    AskForLinksBody, BackupBody, BackupDetailBody, CreateBackupBody, LinkBody, LinksBody, PageBody,
};
use super::parameters::{BackupPath, InstancePath, PageQuery};
use super::path::PathId;
use crate::Api;
use crate::auth::Identity;
use crate::download;
use crate::query::{PageStart, Query};

/// Create a backup of an instance
#[utoipa::path(post, path = "/instances/{instance_id}/backups", operation_id = "CreateBackup", tag = "Backups",
    params(InstancePath),
    request_body = Option<CreateBackupBody>,
    responses((status = 201, body = BackupDetailBody)))]
pub(super) async fn create(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(instance): PathId,
    body: Bytes,
) -> Result<(StatusCode, Json<BackupDetailBody>), Error> {
    let instance = instances::parse(&instance)?;
    let body: CreateBackupBody = parse_body(&body)?;
    let note = body.note.as_deref().map(str::parse).transpose();
    let note =
        note.map_err(|e: cachevault_domain::NoteTooLong| Error::BadRequest(e.to_string()))?;
    let dialect = if body.portable { RdbDialect::Portable } else { RdbDialect::Native };
    let id =
        api.app.request_backup(&identity.caller, instance, RequestBackup { note, dialect }).await?;
    let detail = api.app.get_backup(&identity.caller.for_answer(), id).await?;
    Ok((StatusCode::CREATED, Json(detail.into())))
}

/// List the backups of an instance, newest first
#[utoipa::path(get, path = "/instances/{instance_id}/backups", operation_id = "ListBackups", tag = "Backups",
    params(InstancePath, PageQuery),
    responses((status = 200, body = PageBody<BackupBody>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(instance): PathId,
    RawQuery(query): RawQuery,
) -> Result<Json<PageBody<BackupBody>>, Error> {
    let instance = instances::parse(&instance)?;
    let page = Query::parse(query.as_deref()).page(PageStart::Zero, PAGE_DEFAULT, PAGE_MAX)?;
    let listing =
        api.app.list_backups(&identity.caller, instance, BackupFilter::default(), page).await?;
    let items = listing.items.iter().map(BackupBody::from).collect();
    Ok(Json(PageBody { items, total: listing.total }))
}

/// Show a backup with its stored artifacts
#[utoipa::path(get, path = "/backups/{backup_id}", operation_id = "ShowBackup", tag = "Backups",
    params(BackupPath),
    responses((status = 200, body = BackupDetailBody)))]
pub(super) async fn show(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(backup): PathId,
) -> Result<Json<BackupDetailBody>, Error> {
    let detail = api.app.get_backup(&identity.caller, parse(&backup)?).await?;
    Ok(Json(detail.into()))
}

/// Delete a backup's files
///
/// The record stays listed for the configured time.
#[utoipa::path(delete, path = "/backups/{backup_id}", operation_id = "RemoveBackup", tag = "Backups",
    params(BackupPath),
    responses((status = 204, description = "The files are deleted")))]
pub(super) async fn remove(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(backup): PathId,
) -> Result<StatusCode, Error> {
    let (caller, backup) = (&identity.caller, parse(&backup)?);
    let found = api.app.find_backup_for(caller, Action::DeleteBackup, backup).await?;
    api.app.remove_backup(caller, found.instance, found.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Cancel a waiting or running backup
///
/// A waiting backup is cancelled before the answer, a running one within seconds. The failure's
/// reason names the caller.
#[utoipa::path(post, path = "/backups/{backup_id}/cancel", operation_id = "CancelBackup", tag = "Backups",
    params(BackupPath),
    responses((status = 202, body = BackupDetailBody)))]
pub(super) async fn cancel(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(backup): PathId,
) -> Result<(StatusCode, Json<BackupDetailBody>), Error> {
    let backup = parse(&backup)?;
    api.app.cancel_backup(&identity.caller, backup).await?;
    let detail = api.app.get_backup(&identity.caller.for_answer(), backup).await?;
    Ok((StatusCode::ACCEPTED, Json(detail.into())))
}

/// Verify a backup's files
///
/// The verification is done when `check_requested_at` becomes null or changes.
#[utoipa::path(post, path = "/backups/{backup_id}/check", operation_id = "CheckBackup", tag = "Backups",
    params(BackupPath),
    responses((status = 202, body = BackupBody)))]
pub(super) async fn check(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(backup): PathId,
) -> Result<(StatusCode, Json<BackupBody>), Error> {
    let backup = parse(&backup)?;
    api.app.request_check(&identity.caller, backup).await?;
    let caller = identity.caller.for_answer();
    let found = api.app.find_backup_for(&caller, Action::ListBackups, backup).await?;
    Ok((StatusCode::ACCEPTED, Json(BackupBody::from(&found))))
}

/// Restore a backup into a temporary server and compare
#[utoipa::path(post, path = "/backups/{backup_id}/drill", operation_id = "DrillBackup", tag = "Backups",
    params(BackupPath),
    responses((status = 202, body = BackupBody)))]
pub(super) async fn drill(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(backup): PathId,
) -> Result<(StatusCode, Json<BackupBody>), Error> {
    let backup = parse(&backup)?;
    api.app.request_drill(&identity.caller, backup).await?;
    let caller = identity.caller.for_answer();
    let found = api.app.find_backup_for(&caller, Action::ListBackups, backup).await?;
    Ok((StatusCode::ACCEPTED, Json(BackupBody::from(&found))))
}

/// Hold a backup: retention does not remove it
#[utoipa::path(put, path = "/backups/{backup_id}/hold", operation_id = "HoldBackup", tag = "Backups",
    params(BackupPath),
    responses((status = 204, description = "The backup is held")))]
pub(super) async fn hold(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(backup): PathId,
) -> Result<StatusCode, Error> {
    api.app.hold_backup(&identity.caller, parse(&backup)?, true).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Release a held backup
#[utoipa::path(delete, path = "/backups/{backup_id}/hold", operation_id = "ReleaseBackup", tag = "Backups",
    params(BackupPath),
    responses((status = 204, description = "The backup is not held")))]
pub(super) async fn release(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(backup): PathId,
) -> Result<StatusCode, Error> {
    api.app.hold_backup(&identity.caller, parse(&backup)?, false).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Create download links for a backup's files
#[utoipa::path(post, path = "/backups/{backup_id}/links", operation_id = "LinkBackup", tag = "Backups",
    params(BackupPath),
    request_body = Option<AskForLinksBody>,
    responses((status = 200, body = LinksBody)))]
pub(super) async fn links(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(backup): PathId,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<LinksBody>, Error> {
    let AskForLinksBody { expires_seconds } = parse_body(&body)?;
    let lifetime = LinkLifetime::from_seconds(expires_seconds)
        .map_err(|e| Error::BadRequest(format!("`expires_seconds` is {expires_seconds}: {e}")))?;
    let (caller, backup) = (&identity.caller, parse(&backup)?);
    let found = api.app.find_backup_for(caller, Action::DownloadBackup, backup).await?;
    let links = api.app.link_backup(caller, found.instance, found.id, lifetime).await?;
    let link = |file: &_| LinkBody::new(file, download::url(&api, &headers, file));
    Ok(Json(LinksBody { links: links.files.iter().map(link).collect() }))
}

fn parse(backup: &str) -> Result<BackupId, Error> {
    backup.parse().map_err(|_| Error::App(AppError::BackupNotFound))
}

fn parse_body<T: DeserializeOwned + Default>(body: &Bytes) -> Result<T, Error> {
    if body.is_empty() {
        return Ok(T::default());
    }
    body::parse(body)
}

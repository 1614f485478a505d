use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use bytes::Bytes;

use crate::Api;
use crate::dcs::error::V2;
use crate::dcs::extract::{OfBackup, parse_needed_body};
use crate::dcs::parameters::BackupPath;
use crate::dcs::v2::Error;
use crate::dcs::v2::model::{AskForLinks, BackupLinks};
use crate::dcs::wish;
use crate::download;

/// Create download links for a backup's files
///
/// A link needs no other authentication until it expires.
#[utoipa::path(post, path = "/{project_id}/instances/{instance_id}/backups/{backup_id}/links",
    operation_id = "ListBackupFileLinks", tag = "Backups", params(BackupPath),
    request_body = AskForLinks, responses((status = 200, body = BackupLinks)))]
pub(crate) async fn links(
    State(api): State<Api>,
    OfBackup { caller, instance, backup, .. }: OfBackup<V2>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<BackupLinks>, Error> {
    let AskForLinks { expiration } = parse_needed_body(&body)?;
    let lifetime = wish::link_lifetime(expiration)?;
    let links = api.app.link_backup(&caller, instance, backup, lifetime).await?;
    let url = |link: &_| download::url(&api, &headers, link);
    Ok(Json(BackupLinks::new(&links, url)))
}

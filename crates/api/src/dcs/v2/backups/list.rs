use axum::Json;
use axum::extract::{RawQuery, State};

use crate::Api;
use crate::dcs::error::V2;
use crate::dcs::extract::OfInstance;
use crate::dcs::parameters::{InstancePath, RecordsFromOffset};
use crate::dcs::v2::Error;
use crate::dcs::v2::model::BackupRecords;
use crate::query::{PageStart, Query};

/// List the backups of an instance, newest first
#[utoipa::path(get, path = "/{project_id}/instances/{instance_id}/backups",
    operation_id = "ListBackupRecords", tag = "Backups",
    params(InstancePath, RecordsFromOffset),
    responses((status = 200, body = BackupRecords)))]
pub(crate) async fn list(
    State(api): State<Api>,
    OfInstance { caller, instance, .. }: OfInstance<V2>,
    RawQuery(query): RawQuery,
) -> Result<Json<BackupRecords>, Error> {
    let query = Query::parse(query.as_deref());
    let (filter, page) = (query.backup_filter()?, query.backup_page(PageStart::Zero)?);
    let listing = api.app.list_backups(&caller, instance, filter, page).await?;
    Ok(Json(listing.into()))
}

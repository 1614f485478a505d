use axum::Json;
use axum::extract::{RawQuery, State};

use crate::Api;
use crate::dcs::error::V1;
use crate::dcs::extract::OfInstance;
use crate::dcs::parameters::{InstancePath, RecordsFromStart};
use crate::dcs::v1_0::Error;
use crate::dcs::v1_0::model::RestoreRecords;
use crate::query::{PageStart, Query};

/// List the restores into an instance, newest first
#[utoipa::path(get, path = "/{project_id}/instances/{instance_id}/restores",
    operation_id = "ListRestoreRecords", tag = "Restores",
    params(InstancePath, RecordsFromStart),
    responses((status = 200, body = RestoreRecords)))]
pub(crate) async fn list(
    State(api): State<Api>,
    OfInstance { caller, instance, .. }: OfInstance<V1>,
    RawQuery(query): RawQuery,
) -> Result<Json<RestoreRecords>, Error> {
    let query = Query::parse(query.as_deref());
    let (filter, page) = (query.restore_filter()?, query.backup_page(PageStart::One)?);
    let listing = api.app.list_restores(&caller, instance, filter, page).await?;
    Ok(Json(listing.into()))
}

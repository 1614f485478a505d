use axum::Json;
use axum::extract::{RawQuery, State};

use crate::Api;
use crate::dcs::error::V2;
use crate::dcs::extract::InProject;
use crate::dcs::parameters::{InstancesFromOffset, ProjectPath};
use crate::dcs::v2::Error;
use crate::dcs::v2::model::Instances;
use crate::query::{PageStart, Query};

const LIMIT_DEFAULT: u32 = 10;
const LIMIT_MAX: u32 = 1000;

/// List instances, newest first
#[utoipa::path(get, path = "/{project_id}/instances", operation_id = "ListInstances",
    tag = "Instances", params(ProjectPath, InstancesFromOffset),
    responses((status = 200, body = Instances)))]
pub(crate) async fn list(
    State(api): State<Api>,
    InProject { caller, .. }: InProject<V2>,
    RawQuery(query): RawQuery,
) -> Result<Json<Instances>, Error> {
    let query = Query::parse(query.as_deref());
    let page = query.page(PageStart::Zero, LIMIT_DEFAULT, LIMIT_MAX)?;
    let filter = query.instance_filter()?;
    let listing = api.app.list_instances(&caller, filter.as_ref(), page).await?;
    Ok(Json(listing.into()))
}

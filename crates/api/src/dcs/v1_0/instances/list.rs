use axum::Json;
use axum::extract::{RawQuery, State};

use crate::Api;
use crate::dcs::error::V1;
use crate::dcs::extract::InProject;
use crate::dcs::parameters::{InstancesFromStart, ProjectPath};
use crate::dcs::v1_0::Error;
use crate::dcs::v1_0::model::Instances;
use crate::query::{PageStart, Query};

const LIMIT_DEFAULT: u32 = 1000;
const LIMIT_MAX: u32 = 2000;

/// List instances, newest first
#[utoipa::path(get, path = "/{project_id}/instances", operation_id = "ListInstances",
    tag = "Instances", params(ProjectPath, InstancesFromStart),
    responses((status = 200, body = Instances)))]
pub(crate) async fn list(
    State(api): State<Api>,
    InProject { caller, .. }: InProject<V1>,
    RawQuery(query): RawQuery,
) -> Result<Json<Instances>, Error> {
    let query = Query::parse(query.as_deref());
    let page = query.page(PageStart::One, LIMIT_DEFAULT, LIMIT_MAX)?;
    let filter = query.instance_filter()?;
    let listing = api.app.list_instances(&caller, filter.as_ref(), page).await?;
    Ok(Json(listing.into()))
}

//! `/{project_id}/quota`, `/{project_id}/instances/{statistic,status}`, `…/configs`

use axum::Json;
use axum::extract::State;
use cachevault_domain::{InstanceFilter, Page};

use super::Error;
use crate::Api;
use crate::dcs::error::V1;
use crate::dcs::extract::{InProject, OfInstance};
use crate::dcs::figures::{Configs, QuotasOfUser, Statistics, StatusCountsBody};
use crate::dcs::parameters::{InstancePath, ProjectPath};

/// Maximum of instances in the statistics.
const STATISTICS_MAX: u32 = 10_000;

/// Show the quotas of a project and their usage
#[utoipa::path(get, path = "/{project_id}/quota", operation_id = "ShowQuotaOfTenant",
    tag = "Figures", params(ProjectPath), responses((status = 200, body = QuotasOfUser)))]
pub(crate) async fn quota(
    State(api): State<Api>,
    InProject { caller, .. }: InProject<V1>,
) -> Result<Json<QuotasOfUser>, Error> {
    let (project, counts) = api.app.project_quota(&caller).await?;
    Ok(Json(QuotasOfUser::new(&project, &counts)))
}

/// Show statistics of each instance
#[utoipa::path(get, path = "/{project_id}/instances/statistic",
    operation_id = "ListStatisticsOfRunningInstances", tag = "Figures", params(ProjectPath),
    responses((status = 200, body = Statistics)))]
pub(crate) async fn statistic(
    State(api): State<Api>,
    InProject { caller, .. }: InProject<V1>,
) -> Result<Json<Statistics>, Error> {
    let page = Page { offset: 0, limit: STATISTICS_MAX };
    let listing = api.app.list_instances(&caller, Some(&InstanceFilter::default()), page).await?;
    Ok(Json(listing.into()))
}

/// Count the instances in each status
#[utoipa::path(get, path = "/{project_id}/instances/status",
    operation_id = "ListNumberOfInstancesInDifferentStatus", tag = "Figures", params(ProjectPath),
    responses((status = 200, body = StatusCountsBody)))]
pub(crate) async fn status(
    State(api): State<Api>,
    InProject { caller, .. }: InProject<V1>,
) -> Result<Json<StatusCountsBody>, Error> {
    let counts = api.app.count_instances(&caller).await?;
    Ok(Json((&counts).into()))
}

/// Show the configuration parameters of an instance
///
/// The list is always empty: configuration parameters are neither shown nor changed.
#[utoipa::path(get, path = "/{project_id}/instances/{instance_id}/configs",
    operation_id = "ListConfigurations", tag = "Instances", params(InstancePath),
    responses((status = 200, body = Configs)))]
pub(crate) async fn configs(
    State(api): State<Api>,
    OfInstance { caller, instance, .. }: OfInstance<V1>,
) -> Result<Json<Configs>, Error> {
    let instance = api.app.get_configured_instance(&caller, instance).await?;
    Ok(Json((&instance).into()))
}

//! `/{project_id}/quota`, `/{project_id}/instances/{statistic,status}`, `…/configs`,
//! `…/{bigkey,hotkey}/autoscan`

use axum::Json;
use axum::extract::State;
use cachevault_domain::{InstanceFilter, Page};

use super::Error;
use crate::Api;
use crate::dcs::error::V2;
use crate::dcs::extract::{InProject, OfInstance};
use crate::dcs::figures::{AutoScan, Configs, QuotasBody, Statistics, StatusCountsBody};
use crate::dcs::parameters::{InstancePath, ProjectPath};

/// Maximum of instances in the statistics.
const STATISTICS_MAX: u32 = 10_000;

/// Show the quotas of a project and their usage
#[utoipa::path(get, path = "/{project_id}/quota", operation_id = "ShowQuotaOfTenant",
    tag = "Figures", params(ProjectPath), responses((status = 200, body = QuotasBody)))]
pub(crate) async fn quota(
    State(api): State<Api>,
    InProject { caller, .. }: InProject<V2>,
) -> Result<Json<QuotasBody>, Error> {
    let counts = api.app.count_instances(&caller).await?;
    Ok(Json((&counts).into()))
}

/// Show statistics of each instance
#[utoipa::path(get, path = "/{project_id}/instances/statistic",
    operation_id = "ListStatisticsOfRunningInstances", tag = "Figures", params(ProjectPath),
    responses((status = 200, body = Statistics)))]
pub(crate) async fn statistic(
    State(api): State<Api>,
    InProject { caller, .. }: InProject<V2>,
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
    InProject { caller, .. }: InProject<V2>,
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
    OfInstance { caller, instance, .. }: OfInstance<V2>,
) -> Result<Json<Configs>, Error> {
    let instance = api.app.get_configured_instance(&caller, instance).await?;
    Ok(Json((&instance).into()))
}

/// Show the automatic scan of an instance for large keys
///
/// The scan is never enabled. Terraform requires the answer for an empty plan of an instance.
#[utoipa::path(get, path = "/{project_id}/instances/{instance_id}/bigkey/autoscan",
    operation_id = "ShowBigkeyAutoscanConfig", tag = "Instances", params(InstancePath),
    responses((status = 200, body = AutoScan)))]
pub(crate) async fn bigkey_autoscan(
    State(api): State<Api>,
    OfInstance { caller, instance, .. }: OfInstance<V2>,
) -> Result<Json<AutoScan>, Error> {
    let instance = api.app.get_instance(&caller, instance).await?;
    Ok(Json((&instance).into()))
}

/// Show the automatic scan of an instance for hot keys
///
/// The scan is never enabled. Terraform requires the answer for an empty plan of an instance.
#[utoipa::path(get, path = "/{project_id}/instances/{instance_id}/hotkey/autoscan",
    operation_id = "ShowHotkeyAutoscanConfig", tag = "Instances", params(InstancePath),
    responses((status = 200, body = AutoScan)))]
pub(crate) async fn hotkey_autoscan(
    State(api): State<Api>,
    OfInstance { caller, instance, .. }: OfInstance<V2>,
) -> Result<Json<AutoScan>, Error> {
    let instance = api.app.get_instance(&caller, instance).await?;
    Ok(Json((&instance).into()))
}

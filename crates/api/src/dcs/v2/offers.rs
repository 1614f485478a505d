//! `/available-zones`, `/instances/maintain-windows`, `/{project_id}/flavors`

use axum::extract::State;
use axum::{Extension, Json};

use super::Error;
use crate::Api;
use crate::auth::Identity;
use crate::dcs::error::V2;
use crate::dcs::extract::InProject;
use crate::dcs::offers::{Flavors, Windows, Zones, may_choose};
use crate::dcs::parameters::ProjectPath;

/// List the availability zones
#[utoipa::path(get, path = "/available-zones", operation_id = "ListAvailableZones", tag = "Offers",
    responses((status = 200, body = Zones)))]
pub(crate) async fn zones(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
) -> Result<Json<Zones>, Error> {
    may_choose(&identity)?;
    Ok(Json(Zones::of(&api.region)))
}

/// List the maintenance windows
#[utoipa::path(get, path = "/instances/maintain-windows", operation_id = "ListMaintenanceWindows",
    tag = "Offers", responses((status = 200, body = Windows)))]
pub(crate) async fn windows(
    Extension(identity): Extension<Identity>,
) -> Result<Json<Windows>, Error> {
    may_choose(&identity)?;
    Ok(Json(Windows::all()))
}

/// List the specifications
#[utoipa::path(get, path = "/{project_id}/flavors", operation_id = "ListFlavors", tag = "Offers",
    params(ProjectPath), responses((status = 200, body = Flavors)))]
pub(crate) async fn flavors(
    _: InProject<V2>,
    Extension(identity): Extension<Identity>,
) -> Result<Json<Flavors>, Error> {
    may_choose(&identity)?;
    Ok(Json(Flavors::all()))
}

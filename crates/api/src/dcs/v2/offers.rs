//! `/available-zones`, `/instances/maintain-windows`, `/{project_id}/flavors`

use axum::Json;
use axum::extract::State;

use super::Error;
use crate::Api;
use crate::dcs::error::V2;
use crate::dcs::extract::InProject;
use crate::dcs::offers::{Flavors, Windows, Zones};
use crate::dcs::parameters::ProjectPath;

/// List the availability zones
#[utoipa::path(get, path = "/available-zones", operation_id = "ListAvailableZones", tag = "Offers",
    extensions(("x-any-identity" = json!(true))),
    responses((status = 200, body = Zones)))]
pub(crate) async fn zones(State(api): State<Api>) -> Json<Zones> {
    Json(Zones::of(&api.region))
}

/// List the maintenance windows
#[utoipa::path(get, path = "/instances/maintain-windows", operation_id = "ListMaintenanceWindows",
    tag = "Offers",
    extensions(("x-any-identity" = json!(true))), responses((status = 200, body = Windows)))]
pub(crate) async fn windows() -> Json<Windows> {
    Json(Windows::all())
}

/// List the specifications
#[utoipa::path(get, path = "/{project_id}/flavors", operation_id = "ListFlavors", tag = "Offers",
    extensions(("x-any-identity" = json!(true))),
    params(ProjectPath), responses((status = 200, body = Flavors)))]
pub(crate) async fn flavors(_: InProject<V2>) -> Result<Json<Flavors>, Error> {
    Ok(Json(Flavors::all()))
}

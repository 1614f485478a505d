//! `/availableZones`, `/instances/maintain-windows`, `/products`

use axum::Json;
use axum::extract::State;

use crate::Api;
use crate::dcs::offers::{Products, Windows, ZonesTwice};

/// List the availability zones
#[utoipa::path(get, path = "/availableZones", operation_id = "ListAvailableZones", tag = "Offers",
    extensions(("x-any-identity" = json!(true))),
    responses((status = 200, body = ZonesTwice)))]
pub(crate) async fn zones(State(api): State<Api>) -> Json<ZonesTwice> {
    Json(ZonesTwice::of(&api.region))
}

/// List the maintenance windows
#[utoipa::path(get, path = "/instances/maintain-windows", operation_id = "ListMaintenanceWindows",
    tag = "Offers",
    extensions(("x-any-identity" = json!(true))), responses((status = 200, body = Windows)))]
pub(crate) async fn windows() -> Json<Windows> {
    Json(Windows::all())
}

/// List the specifications
#[utoipa::path(get, path = "/products", operation_id = "ListProducts", tag = "Offers",
    extensions(("x-any-identity" = json!(true))),
    responses((status = 200, body = Products)))]
pub(crate) async fn products() -> Json<Products> {
    Json(Products::all())
}

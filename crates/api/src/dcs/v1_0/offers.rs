//! `/availableZones`, `/instances/maintain-windows`, `/products`

use axum::extract::State;
use axum::{Extension, Json};

use super::Error;
use crate::Api;
use crate::auth::Identity;
use crate::dcs::offers::{Products, Windows, ZonesTwice, may_choose};

/// List the availability zones
#[utoipa::path(get, path = "/availableZones", operation_id = "ListAvailableZones", tag = "Offers",
    responses((status = 200, body = ZonesTwice)))]
pub(crate) async fn zones(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
) -> Result<Json<ZonesTwice>, Error> {
    may_choose(&identity)?;
    Ok(Json(ZonesTwice::of(&api.region)))
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
#[utoipa::path(get, path = "/products", operation_id = "ListProducts", tag = "Offers",
    responses((status = 200, body = Products)))]
pub(crate) async fn products(
    Extension(identity): Extension<Identity>,
) -> Result<Json<Products>, Error> {
    may_choose(&identity)?;
    Ok(Json(Products::all()))
}

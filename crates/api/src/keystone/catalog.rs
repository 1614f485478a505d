//! The service catalog: the endpoints of DCS and Keystone.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use cachevault_domain::ProjectId;
use serde_json::{Value, json};

use super::body::stable_id;
use crate::Api;
use crate::auth::Identity;
use crate::download::base;
use crate::query::Query;

/// `GET /v3/auth/catalog`.
pub(super) async fn show(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
) -> Json<Value> {
    let base = base(&api, &headers);
    let catalog = services(&api.region, &base, identity.caller.own_project());
    Json(json!({
        "catalog": catalog,
        "links": {"self": format!("{base}/v3/auth/catalog"), "previous": null, "next": null},
    }))
}

/// Whether a token response contains the catalog: unless `nocatalog` is given.
pub(super) fn wants_catalog(query: Option<&str>) -> bool {
    !Query::parse(query).has("nocatalog")
}

/// The services for a caller in this project. Without a project, DCS has no endpoint.
pub(super) fn services(region: &str, base: &str, project: Option<&ProjectId>) -> Vec<Value> {
    let mut services = vec![service("identity", "keystone", region, &format!("{base}/v3"))];
    if let Some(project) = project {
        // Clients derive the URL of v2 from this one. Some clients search for the second name.
        let url = format!("{base}/v1.0/{project}");
        services.push(service("dcs", "dcs", region, &url));
        services.push(service("dcsv1", "dcsv1", region, &url));
    }
    services
}

fn service(kind: &str, name: &str, region: &str, url: &str) -> Value {
    let endpoint = json!({
        "id": stable_id(&["endpoint", kind, region]),
        "interface": "public",
        // Clients read one field or the other.
        "region": region,
        "region_id": region,
        "url": url,
    });
    json!({
        "id": stable_id(&["service", kind]),
        "type": kind,
        "name": name,
        "endpoints": [endpoint],
    })
}

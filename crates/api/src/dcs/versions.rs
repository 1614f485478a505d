//! The version documents, which require no authentication.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::{Api, download};

pub(crate) const V1_0: &str = "v1.0";
pub(crate) const V2: &str = "v2";

/// The versions of the API.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Versions {
    versions: Vec<Version>,
}

/// One version of the API.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OneVersion {
    version: Version,
}

#[derive(Debug, Serialize, ToSchema)]
struct Version {
    #[schema(example = "v2")]
    id: &'static str,
    links: Vec<VersionLink>,
    /// Always empty: the API has no minor versions.
    version: &'static str,
    min_version: &'static str,
    /// `CURRENT` or `DEPRECATED`.
    #[schema(example = "CURRENT")]
    status: &'static str,
    /// Always empty: the vendor's date of publication is unknown.
    updated: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
struct VersionLink {
    href: String,
    #[schema(example = "self")]
    rel: &'static str,
}

impl Version {
    fn new(id: &'static str, base: &str) -> Self {
        let status = if id == V2 { "CURRENT" } else { "DEPRECATED" };
        let links = vec![VersionLink { href: format!("{base}/{id}"), rel: "self" }];
        Self { id, links, version: "", min_version: "", status, updated: "" }
    }
}

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(v1_0)).routes(routes!(v2))
}

/// List the versions of the API
#[utoipa::path(get, path = "/", operation_id = "ListVersions", tag = "Versions", security(()),
    responses((status = 200, body = Versions)))]
async fn list(State(api): State<Api>, headers: HeaderMap) -> Json<Versions> {
    let base = download::base(&api, &headers);
    Json(Versions { versions: [V1_0, V2].map(|id| Version::new(id, &base)).into() })
}

/// Show v1.0 of the API
#[utoipa::path(get, path = "/v1.0", operation_id = "ShowVersion1", tag = "Versions", security(()),
    responses((status = 200, body = OneVersion)))]
async fn v1_0(State(api): State<Api>, headers: HeaderMap) -> Json<OneVersion> {
    Json(OneVersion { version: Version::new(V1_0, &download::base(&api, &headers)) })
}

/// Show v2 of the API
#[utoipa::path(get, path = "/v2", operation_id = "ShowVersion2", tag = "Versions", security(()),
    responses((status = 200, body = OneVersion)))]
async fn v2(State(api): State<Api>, headers: HeaderMap) -> Json<OneVersion> {
    Json(OneVersion { version: Version::new(V2, &download::base(&api, &headers)) })
}

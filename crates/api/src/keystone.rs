//! Keystone v3 on the same host, in the extent that DCS clients use: sign-in, validation and
//! revocation of tokens, the service catalog, and the caller's projects and domains.
//!
//! There is one domain. Callers see no project, user or token of others.

mod body;
mod catalog;
mod error;
mod sign_in;
mod tokens;

use axum::extract::{DefaultBodyLimit, RawQuery, Request, State};
use axum::http::HeaderMap;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};

use self::body::project_body;
use self::error::Error;
use crate::Api;
use crate::audit;
use crate::auth::{self, Identity};
use crate::download::base;
use crate::query::Query;

/// The only domain.
const DOMAIN_ID: &str = "default";
const DOMAIN_NAME: &str = "Default";
/// The size limit of a sign-in body, which is read before authentication. Clients send far less.
const SIGN_IN_BYTES_MAX: usize = 64 << 10;

pub(crate) fn router(api: &Api) -> Router<Api> {
    let signed_in = from_fn_with_state(api.clone(), authenticate);
    let recorded = from_fn_with_state(api.clone(), audit::record);
    let shown = get(tokens::show).delete(tokens::revoke);
    let shown = shown.route_layer(recorded).route_layer(signed_in.clone());
    let sign_in = post(sign_in::sign_in).layer(DefaultBodyLimit::max(SIGN_IN_BYTES_MAX));
    let of_caller = Router::new()
        .route("/v3/auth/catalog", get(catalog::show))
        .route("/v3/auth/projects", get(projects))
        .route("/v3/auth/domains", get(domains))
        .route("/v3/projects", get(projects))
        .route_layer(signed_in);
    Router::new()
        .route("/v3", get(version))
        .route("/v3/", get(version))
        .route("/v3/auth/tokens", sign_in.merge(shown))
        .route("/v3/{*rest}", any(async || Error::NotFound))
        .merge(of_caller)
}

/// Passes a request on only when its sender is authenticated.
async fn authenticate(State(api): State<Api>, request: Request, next: Next) -> Response {
    match auth::prove(&api, request).await {
        Ok(request) => next.run(request).await,
        Err(error) => Error::from(error).into_response(),
    }
}

async fn version(State(api): State<Api>, headers: HeaderMap) -> Json<Value> {
    let media = json!({
        "base": "application/json",
        "type": "application/vnd.openstack.identity-v3+json",
    });
    Json(json!({"version": {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": format!("{}/v3/", base(&api, &headers))}],
        "media-types": [media],
    }}))
}

/// The caller's projects, or the one with the given name.
async fn projects(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Json<Value>, Error> {
    let wanted = Query::parse(query.as_deref()).name();
    let base = base(&api, &headers);
    let own = api.app.own_projects(&identity.caller).await?;
    let projects: Vec<_> = own
        .iter()
        .filter(|project| wanted.as_ref().is_none_or(|name| project.name.as_str() == name))
        .map(|project| project_body(project, &base))
        .collect();
    Ok(Json(json!({"projects": projects, "links": links(&format!("{base}/v3/auth/projects"))})))
}

async fn domains(
    State(api): State<Api>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Json<Value> {
    let wanted = Query::parse(query.as_deref()).name();
    let base = base(&api, &headers);
    let domain = json!({
        "id": DOMAIN_ID,
        "name": DOMAIN_NAME,
        "description": "",
        "enabled": true,
        "links": {"self": format!("{base}/v3/domains/{DOMAIN_ID}")},
    });
    let is_wanted = wanted.is_none_or(|name| is_domain(None, Some(&name)));
    let domains: Vec<_> = is_wanted.then_some(domain).into_iter().collect();
    Json(json!({"domains": domains, "links": links(&format!("{base}/v3/auth/domains"))}))
}

fn links(own: &str) -> Value {
    json!({"self": own, "previous": null, "next": null})
}

/// Whether a domain reference by id, by name, or without both means the only domain.
fn is_domain(id: Option<&str>, name: Option<&str>) -> bool {
    id.is_none_or(|id| id.eq_ignore_ascii_case(DOMAIN_ID))
        && name.is_none_or(|name| name.eq_ignore_ascii_case(DOMAIN_NAME))
}

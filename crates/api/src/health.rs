//! `/healthz`: the process answers. `/readyz`: catalog and store are usable too.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use crate::Api;

#[derive(Serialize)]
struct Health {
    status: &'static str,
    /// What is not usable; never why, since nobody has to sign in to read this.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

pub(crate) fn router() -> Router<Api> {
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready))
}

async fn alive() -> Json<Health> {
    Json(Health { status: "alive", reason: None })
}

async fn ready(State(api): State<Api>) -> (StatusCode, Json<Health>) {
    match api.app.check_ready().await {
        Ok(()) => (StatusCode::OK, Json(Health { status: "ready", reason: None })),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "not ready");
            let reason = match error {
                cachevault_app::AppError::StoreUnavailable(_) => "the store cannot be used",
                _ => "the catalog cannot be used",
            };
            let body = Health { status: "not ready", reason: Some(reason) };
            (StatusCode::SERVICE_UNAVAILABLE, Json(body))
        }
    }
}

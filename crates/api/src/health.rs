//! `/healthz`: the process answers. `/readyz`: catalog and store are usable, and the disks of the
//! service have their reserve.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use cachevault_app::{App, AppError};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::Api;

const CHECK_HOLDS: Duration = Duration::from_secs(1);

const FOREIGN_STORE: &str = "the store is not the one that the backups are in; see `cachevault store \
                             accept` and `cachevault catalog rebuild`";

#[derive(Serialize)]
struct Health {
    status: &'static str,
    /// The unusable part, without the cause: the page requires no authentication.
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
    match api.readiness.check(&api.app).await {
        None => (StatusCode::OK, Json(Health { status: "ready", reason: None })),
        reason => (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "not ready", reason })),
    }
}

/// The last readiness check. A check writes to catalog and store, and any client may request one.
/// Checks therefore run one at a time, and each result is valid for one second.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<Option<(Instant, Option<&'static str>)>>);

impl Readiness {
    /// The unusable part, if any.
    async fn check(&self, app: &App) -> Option<&'static str> {
        let mut last = self.0.lock().await;
        if let Some((at, reason)) = *last
            && at.elapsed() < CHECK_HOLDS
        {
            return reason;
        }
        let reason = match app.check_ready().await {
            Ok(()) => None,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "not ready");
                match error {
                    error if error.is_foreign_store() => Some(FOREIGN_STORE),
                    AppError::StoreUnavailable(_) => Some("the store cannot be used"),
                    AppError::DiskShortage(_) => Some("a disk of the service is nearly full"),
                    _ => Some("the catalog cannot be used"),
                }
            }
        };
        *last = Some((Instant::now(), reason));
        reason
    }
}

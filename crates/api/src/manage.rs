//! Our own management API, `/api/v1`: what DCS cannot say. The command line uses nothing else.
//!
//! Everything is in the project that the credential opens. Sizes are bytes, moments RFC 3339 in
//! UTC. Errors: `{"error": {"code", "message", "request_id"}}`.

mod audit;
mod backups;
mod error;
mod instances;
mod model;
mod path;
mod restores;
mod settings;

use axum::Router;
use axum::routing::{get, post, put};

use crate::Api;

pub(crate) fn router() -> Router<Api> {
    Router::new()
        .route("/instances", get(instances::list).post(instances::add))
        .route(
            "/instances/{instance_id}",
            get(instances::show).patch(instances::change).delete(instances::remove),
        )
        .route("/instances/{instance_id}/backups", get(backups::list).post(backups::create))
        .route("/backups/{backup_id}", get(backups::show).delete(backups::remove))
        .route("/instances/{instance_id}/restores", get(restores::list).post(restores::create))
        .route("/instances/{instance_id}/restores/plan", post(restores::plan))
        .route("/backups/{backup_id}/check", post(backups::check))
        .route("/backups/{backup_id}/drill", post(backups::drill))
        .route("/backups/{backup_id}/hold", put(backups::hold).delete(backups::release))
        .route("/backups/{backup_id}/links", post(backups::links))
        .route("/audit", get(audit::list))
        .route("/restores/{restore_id}", get(restores::show))
}

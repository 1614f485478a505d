//! Our own management API, `/api/v1`: what DCS cannot say. The command line uses nothing else.
//!
//! Everything is in the project that the credential opens. Sizes are bytes, moments RFC 3339 in
//! UTC. Errors: `{"error": {"code", "message", "request_id"}}`.

mod audit;
mod backups;
mod body;
mod credentials;
mod error;
mod instances;
mod model;
mod path;
mod policies;
mod projects;
mod restores;
mod settings;
mod users;

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
        .route("/backups/{backup_id}/links", post(backups::links))
        .route("/audit", get(audit::list))
        .route("/restores/{restore_id}", get(restores::show))
        .merge(access())
}

/// Who may get in, and what is allowed there.
fn access() -> Router<Api> {
    Router::new()
        .route("/projects", get(projects::list).post(projects::create))
        .route("/projects/{project}", get(projects::show).patch(projects::update))
        .route("/users", get(users::list).post(users::create))
        .route("/users/{user}", get(users::show).patch(users::update).delete(users::remove))
        .route("/users/{user}/grants/{project}", put(users::set_grant).delete(users::remove_grant))
        .route("/password", post(users::change_own_password))
        .route("/credentials", get(credentials::list).post(credentials::create))
        .route(
            "/credentials/{access_key}",
            get(credentials::show).patch(credentials::update).delete(credentials::remove),
        )
        .route("/credentials/{access_key}/rotate", post(credentials::rotate))
        .route("/policies", get(policies::list).post(policies::create))
        .route(
            "/policies/{policy}",
            get(policies::show).put(policies::update).delete(policies::remove),
        )
}

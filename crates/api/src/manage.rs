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
mod parameters;
mod path;
mod policies;
mod projects;
mod restores;
mod settings;
mod users;

use axum::Router;
use axum::routing::{get, post, put};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Api;

pub(crate) use error::ErrorBody;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::default()
        .routes(routes!(instances::list, instances::add))
        .routes(routes!(instances::show, instances::change, instances::remove))
        .routes(routes!(backups::list, backups::create))
        .routes(routes!(backups::show, backups::remove))
        .routes(routes!(restores::list, restores::create))
        .routes(routes!(restores::plan))
        .routes(routes!(backups::check))
        .routes(routes!(backups::drill))
        .routes(routes!(backups::links))
        .routes(routes!(restores::show))
        .route("/audit", get(audit::list))
        .merge(access().into())
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

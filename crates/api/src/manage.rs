//! The management API under `/api/v1`: everything that DCS cannot express. The command line uses
//! only this API.
//!
//! All resources belong to the project of the credential. Sizes are bytes; times are RFC 3339 in
//! UTC. Errors: `{"error": {"code", "message", "request_id"}}`.

mod audit;
mod backups;
mod body;
mod credentials;
mod error;
mod event_stream;
mod events;
mod instances;
mod model;
mod parameters;
mod path;
mod policies;
mod projects;
mod restores;
mod schedules;
mod settings;
mod users;
mod webhooks;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Api;

pub(crate) use error::ErrorBody;
pub use event_stream::{EventStreamLimits, EventStreams};

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::default()
        .routes(routes!(instances::list, instances::add))
        .routes(routes!(instances::show, instances::change, instances::remove))
        .routes(routes!(schedules::show, schedules::set, schedules::remove))
        .routes(routes!(backups::list, backups::create))
        .routes(routes!(backups::show, backups::remove))
        .routes(routes!(restores::list, restores::create))
        .routes(routes!(restores::plan))
        .routes(routes!(backups::cancel))
        .routes(routes!(backups::check))
        .routes(routes!(backups::drill))
        .routes(routes!(backups::hold, backups::release))
        .routes(routes!(backups::links))
        .routes(routes!(restores::show))
        .routes(routes!(restores::cancel))
        .routes(routes!(audit::list))
        .routes(routes!(events::list))
        .routes(routes!(events::list_of_instance))
        .routes(routes!(event_stream::follow))
        .routes(routes!(event_stream::follow_instance))
        .routes(routes!(webhooks::list, webhooks::create))
        .routes(routes!(webhooks::show, webhooks::change, webhooks::remove))
        .routes(routes!(webhooks::test))
        .merge(access())
}

/// Routes that manage projects, users, credentials and roles.
fn access() -> OpenApiRouter<Api> {
    OpenApiRouter::default()
        .routes(routes!(projects::list, projects::create))
        .routes(routes!(projects::show, projects::update))
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::show, users::update, users::remove))
        .routes(routes!(users::set_grant, users::remove_grant))
        .routes(routes!(users::change_own_password))
        .routes(routes!(credentials::list, credentials::create))
        .routes(routes!(credentials::show, credentials::update, credentials::remove))
        .routes(routes!(credentials::rotate))
        .routes(routes!(policies::list, policies::create))
        .routes(routes!(policies::show, policies::update, policies::remove))
}

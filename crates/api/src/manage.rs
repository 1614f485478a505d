//! Our own management API, `/api/v1`: what DCS cannot say. The command line uses nothing else.
//!
//! Everything is in the project that the credential opens. Sizes are bytes, moments RFC 3339 in
//! UTC. Errors: `{"error": {"code", "message", "request_id"}}`.

mod backups;
mod error;
mod instances;
mod model;
mod parameters;
mod path;
mod restores;
mod settings;

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
}

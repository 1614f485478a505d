//! DCS v2.

mod backups;
mod figures;
mod instances;
mod model;
mod offers;
mod restores;
mod tags;

use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::V2;
use crate::Api;
use crate::gateway::unknown_route;

type Error = super::error::Error<V2>;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::default()
        .routes(routes!(
            instances::list::list,
            instances::create::create,
            instances::delete_many::delete_many
        ))
        .routes(routes!(
            instances::show::show,
            instances::update::update,
            instances::delete::delete
        ))
        .routes(routes!(instances::password::password))
        .routes(routes!(backups::list::list, backups::create::create))
        .routes(routes!(backups::delete::delete))
        .routes(routes!(backups::links::links))
        .routes(routes!(restores::list::list, restores::create::create))
        .routes(routes!(figures::quota))
        .routes(routes!(figures::statistic))
        .routes(routes!(figures::status))
        .routes(routes!(figures::configs))
        .routes(routes!(figures::bigkey_autoscan))
        .routes(routes!(figures::hotkey_autoscan))
        .routes(routes!(tags::show))
        .routes(routes!(tags::change))
        .routes(routes!(tags::list))
        .routes(routes!(tags::whitelist))
        .routes(routes!(offers::zones))
        .routes(routes!(offers::windows))
        .routes(routes!(offers::flavors))
        // This path is the vendor's export and not an instance of that name.
        .route("/{project_id}/instances/export-job", get(unknown_route))
}

//! DCS v1.0.

mod backups;
mod figures;
mod instances;
mod model;
mod offers;
mod restores;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::V1;
use crate::Api;

type Error = super::error::Error<V1>;

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
        .routes(routes!(offers::zones))
        .routes(routes!(offers::windows))
        .routes(routes!(offers::products))
}

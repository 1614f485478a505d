//! DCS v2.

mod backups;
mod instances;
mod model;
mod restores;

use axum::Router;
use axum::routing::{delete, get, post};

use super::error::V2;
use crate::Api;

type Error = super::error::Error<V2>;

pub(crate) fn router() -> Router<Api> {
    Router::new()
        .route("/{project_id}/instances", get(instances::list::list))
        .route("/{project_id}/instances/{instance_id}", get(instances::show::show))
        .route(
            "/{project_id}/instances/{instance_id}/backups",
            get(backups::list::list).post(backups::create::create),
        )
        .route(
            "/{project_id}/instances/{instance_id}/backups/{backup_id}",
            delete(backups::delete::delete),
        )
        .route(
            "/{project_id}/instances/{instance_id}/backups/{backup_id}/links",
            post(backups::links::links),
        )
        .route(
            "/{project_id}/instances/{instance_id}/restores",
            get(restores::list::list).post(restores::create::create),
        )
}

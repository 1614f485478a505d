use axum::Json;
use axum::extract::{RawQuery, State};
use bytes::Bytes;

use crate::Api;
use crate::dcs::deletion::{DeleteInstances, Deletions, delete_each};
use crate::dcs::error::{DcsError, V2};
use crate::dcs::extract::{InProject, parse_body};
use crate::dcs::parameters::{AllFailureV2, ProjectPath};
use crate::dcs::v2::Error;
use crate::query::Query;

/// Delete instances and the files of all their backups
///
/// The result lists success or failure for each instance.
#[utoipa::path(delete, path = "/{project_id}/instances", operation_id = "BatchDeleteInstances",
    tag = "Instances", params(ProjectPath, AllFailureV2), request_body = DeleteInstances,
    responses((status = 200, body = Deletions)))]
pub(crate) async fn delete_many(
    State(api): State<Api>,
    InProject { caller, .. }: InProject<V2>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Result<Json<Deletions>, Error> {
    let all_failed = Query::parse(query.as_deref()).all_failed()?;
    if body.is_empty() && !all_failed {
        return Err(DcsError::EmptyBody.into());
    }
    let wanted = parse_body::<DeleteInstances>(&body)?.wanted(all_failed)?;
    Ok(Json(delete_each(&api, &caller, wanted).await?))
}

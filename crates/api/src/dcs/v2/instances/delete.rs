use axum::extract::State;
use axum::http::StatusCode;

use crate::Api;
use crate::dcs::error::V2;
use crate::dcs::extract::OfInstance;
use crate::dcs::parameters::InstancePath;
use crate::dcs::v2::Error;

/// Delete an instance and the files of all its backups
///
/// The server itself does not change. The request is refused while a backup, a restore or a drill
/// uses a backup. The instance is removed after all files are removed.
#[utoipa::path(delete, path = "/{project_id}/instances/{instance_id}",
    operation_id = "DeleteSingleInstance", tag = "Instances", params(InstancePath),
    responses((status = 204, description = "The instance and its backups are deleted")))]
pub(crate) async fn delete(
    State(api): State<Api>,
    OfInstance { caller, instance, .. }: OfInstance<V2>,
) -> Result<StatusCode, Error> {
    api.app.remove_instance_with_backups(&caller, instance).await?;
    Ok(StatusCode::NO_CONTENT)
}

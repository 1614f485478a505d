//! Batch deletion of instances.

use cachevault_domain::{Caller, InstanceId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, Schema, SchemaFormat, Type};

use super::error::DcsError;
use crate::Api;

/// Maximum of instances per request.
const INSTANCES_MAX: usize = 50;

/// The instances to delete.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct DeleteInstances {
    #[schema(schema_with = instances_schema, required)]
    instances: Option<Vec<String>>,
}

fn instances_schema() -> Schema {
    let id = ObjectBuilder::new().schema_type(Type::String);
    let id = id.format(Some(SchemaFormat::Custom("uuid".to_owned())));
    ArrayBuilder::new().items(id).min_items(Some(1)).max_items(Some(INSTANCES_MAX)).into()
}

/// The result for each instance.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Deletions {
    results: Vec<Deletion>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Deletion {
    #[schema(format = "uuid")]
    instance: String,
    /// `success` or `failed`.
    #[schema(example = "success")]
    result: &'static str,
}

impl DeleteInstances {
    /// The instance ids. The list must not be empty, except when the request addresses failed
    /// instances, which do not exist here.
    pub(crate) fn wanted(self, all_failed: bool) -> Result<Vec<InstanceId>, DcsError> {
        let named = self.instances.unwrap_or_default();
        if all_failed {
            return Ok(Vec::new());
        }
        if !(1..=INSTANCES_MAX).contains(&named.len()) {
            return Err(DcsError::InvalidField("instances"));
        }
        let ids = named.iter().map(|id| id.parse().map_err(|_| DcsError::InvalidInstanceId));
        ids.collect()
    }
}

/// Deletes instances with their backups, one after the other.
pub(crate) async fn delete_each(
    api: &Api,
    caller: &Caller,
    instances: Vec<InstanceId>,
) -> Result<Deletions, DcsError> {
    let removed = api.app.remove_instances_with_backups(caller, &instances).await?;
    let results = instances.iter().zip(removed).map(|(id, removed)| {
        let result = match removed {
            Ok(()) => "success",
            Err(error) => {
                tracing::warn!(%id, %error, "cannot delete the instance");
                "failed"
            }
        };
        Deletion { instance: id.to_string(), result }
    });
    Ok(Deletions { results: results.collect() })
}

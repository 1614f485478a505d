//! `/api/v1/events`: recorded events.

use axum::extract::{RawQuery, State};
use axum::{Extension, Json};
use cachevault_domain::{Event, InstanceId};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Error;
use super::instances::{self, PAGE_DEFAULT, PAGE_MAX};
use super::parameters::{EventsQuery, InstancePath};
use super::path::PathId;
use crate::Api;
use crate::auth::Identity;
use crate::query::Query;

/// A recorded event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventBody {
    /// The number of the event; later events have higher numbers.
    #[schema(example = 17)]
    id: u64,
    at: String,
    #[schema(example = "backup_failed")]
    kind: &'static str,
    project_id: String,
    /// The instance, or the target of a restore; null for an event of the whole service.
    instance_id: Option<String>,
    /// The current name of the instance.
    #[schema(example = "orders")]
    instance_name: Option<String>,
    /// The backup, or the backup that is restored.
    backup_id: Option<String>,
    restore_id: Option<String>,
    /// Details for people.
    detail: Option<String>,
}

/// A page of events.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventPageBody {
    items: Vec<EventBody>,
}

impl From<&Event> for EventBody {
    fn from(event: &Event) -> Self {
        Self {
            id: event.id.get(),
            at: event.at.to_string(),
            kind: event.kind.as_str(),
            project_id: event.project.to_string(),
            instance_id: event.instance.map(|id| id.to_string()),
            instance_name: event.instance_name.as_ref().map(ToString::to_string),
            backup_id: event.backup.map(|id| id.to_string()),
            restore_id: event.restore.map(|id| id.to_string()),
            detail: event.detail.clone(),
        }
    }
}

/// List the events of the project
#[utoipa::path(get, path = "/events", operation_id = "ListEvents", tag = "Events",
    params(EventsQuery),
    responses((status = 200, body = EventPageBody)))]
pub(super) async fn list(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Result<Json<EventPageBody>, Error> {
    page(&api, &identity, None, query.as_deref()).await
}

/// List the events of an instance
#[utoipa::path(get, path = "/instances/{instance_id}/events", operation_id = "ListInstanceEvents",
    tag = "Events",
    params(InstancePath, EventsQuery),
    responses((status = 200, body = EventPageBody)))]
pub(super) async fn list_of_instance(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(instance): PathId,
    RawQuery(query): RawQuery,
) -> Result<Json<EventPageBody>, Error> {
    page(&api, &identity, Some(instances::parse(&instance)?), query.as_deref()).await
}

async fn page(
    api: &Api,
    identity: &Identity,
    instance: Option<InstanceId>,
    query: Option<&str>,
) -> Result<Json<EventPageBody>, Error> {
    let query = Query::parse(query);
    let limit = query.limit(PAGE_DEFAULT, PAGE_MAX)?;
    let filter = query.event_filter(instance)?;
    let found = api.app.list_events(&identity.caller, &filter, limit).await?;
    Ok(Json(EventPageBody { items: found.items.iter().map(EventBody::from).collect() }))
}

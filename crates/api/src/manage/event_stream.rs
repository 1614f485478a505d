//! Streams of events as server-sent events.
//!
//! A stream reads the events after the last one it sent, then waits. New events of this process
//! wake it at once; events of other processes are polled. The stream authenticates its client again
//! at intervals. It ends with the client's permission, with its lifetime, or with the service. A
//! client that reconnects with `Last-Event-ID` misses no event.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use cachevault_domain::{Event, EventFilter, EventId, InstanceId};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::events::EventBody;
use super::instances;
use super::parameters::{EventStreamQuery, InstancePath, LastEventHeader};
use super::path::PathId;
use crate::Api;
use crate::auth::{self, Identity, header};
use crate::concurrency::{Concurrency, Running};
use crate::gateway::GatewayError;
use crate::query::Query;

/// Maximum of events per read.
const PIECE: u32 = 100;
/// The interval of polling for events of other processes.
const LOOK: Duration = Duration::from_secs(1);
/// The delay after which clients reconnect.
const RETRY: Duration = Duration::from_secs(2);
/// Asks buffering proxies to pass each message on at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Limits of event streams.
#[derive(Debug, Clone, Copy)]
pub struct EventStreamLimits {
    /// Maximum of open streams. One project may use a quarter of them.
    pub open_max: usize,
    /// Lifetime of a stream; the client reconnects afterwards.
    pub lifetime: Duration,
    /// The interval at which the client is authenticated again.
    pub prove_every: Duration,
    /// The interval of heartbeats on an idle stream.
    pub heartbeat: Duration,
}

impl EventStreamLimits {
    /// Limits with the given maximum and lifetime, and defaults for the rest.
    pub fn new(open_max: usize, lifetime: Duration) -> Self {
        let (prove_every, heartbeat) = (Duration::from_secs(10), Duration::from_secs(15));
        Self { open_max, lifetime, prove_every, heartbeat }
    }
}

/// The open event streams.
#[derive(Debug, Clone)]
pub struct EventStreams {
    limits: EventStreamLimits,
    slots: Arc<Semaphore>,
    of_projects: Concurrency,
    stop: CancellationToken,
}

impl EventStreams {
    /// Creates the registry of streams. All streams end with `stop`.
    pub fn new(limits: EventStreamLimits, stop: CancellationToken) -> Self {
        Self {
            limits,
            slots: Arc::new(Semaphore::new(limits.open_max)),
            of_projects: Concurrency::of(limits.open_max.div_ceil(4)),
            stop,
        }
    }

    fn begin(&self, identity: &Identity) -> Option<Slot> {
        let project = identity.caller.own_project().map(ToString::to_string);
        let of_project = self.of_projects.begin(project.unwrap_or_default())?;
        let of_service = self.slots.clone().try_acquire_owned().ok()?;
        Some(Slot { _of_project: of_project, _of_service: of_service })
    }
}

/// The slot of one stream. Dropping it frees the slot.
struct Slot {
    _of_project: Running,
    _of_service: OwnedSemaphorePermit,
}

/// An open stream.
struct Following {
    api: Api,
    identity: Identity,
    /// Selects the events after the last one sent.
    filter: EventFilter,
    ready: VecDeque<Event>,
    proven_at: Instant,
    ends_at: Instant,
    _slot: Slot,
}

/// One message of a stream, in terms of server-sent events.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only the description is used")]
pub(crate) struct EventMessage {
    /// The number of the event.
    id: String,
    /// The kind of the event.
    event: String,
    /// The event as in `ListEvents`, as JSON.
    data: String,
}

/// Follow the events of the project, as server-sent events
///
/// The message id is the event's number, the message name its kind, and the data the event as in
/// `ListEvents`. The stream ends after its lifetime; reconnect with `Last-Event-ID`.
#[utoipa::path(get, path = "/events/stream", operation_id = "FollowEvents", tag = "Events",
    params(EventStreamQuery, LastEventHeader),
    responses((status = 200, body = EventMessage, content_type = "text/event-stream",
        description = "Events, until the client disconnects or the stream's lifetime ends")))]
pub(super) async fn follow(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Error> {
    open(api, identity, None, query.as_deref(), &headers).await
}

/// Follow the events of an instance, as server-sent events
#[utoipa::path(get, path = "/instances/{instance_id}/events/stream",
    operation_id = "FollowInstanceEvents", tag = "Events",
    params(InstancePath, EventStreamQuery, LastEventHeader),
    responses((status = 200, body = EventMessage, content_type = "text/event-stream",
        description = "Events, until the client disconnects or the stream's lifetime ends")))]
pub(super) async fn follow_instance(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(instance): PathId,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let instance = instances::parse(&instance)?;
    open(api, identity, Some(instance), query.as_deref(), &headers).await
}

async fn open(
    api: Api,
    identity: Identity,
    instance: Option<InstanceId>,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response, Error> {
    let named = last_event(headers)?.or(Query::parse(query).event("after")?);
    let filter = EventFilter { instance, after: EventId::MAX, ..EventFilter::default() };
    let newest = api.app.list_events(&identity.caller, &filter, 1).await?.newest;
    let Some(slot) = api.events.begin(&identity) else {
        return Ok(GatewayError::TooManyStreams.into_response());
    };
    let now = Instant::now();
    let limits = api.events.limits;
    let following = Following {
        api,
        identity,
        filter: EventFilter { after: named.unwrap_or(newest), ..filter },
        ready: VecDeque::new(),
        proven_at: now,
        ends_at: now + limits.lifetime,
        _slot: slot,
    };
    let greeting = Message::default().retry(RETRY).comment("events follow");
    let messages = stream::unfold((Some(greeting), following), |(greeting, mut following)| async {
        let message = match greeting {
            Some(greeting) => greeting,
            None => following.next().await?,
        };
        Some((Ok::<_, Infallible>(message), (None, following)))
    });
    let heartbeat = KeepAlive::new().interval(limits.heartbeat).text("heartbeat");
    let mut response = Sse::new(messages).keep_alive(heartbeat).into_response();
    response.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// The last event that a reconnecting client has seen.
fn last_event(headers: &HeaderMap) -> Result<Option<EventId>, Error> {
    const NAME: &str = "last-event-id";
    if !headers.contains_key(NAME) {
        return Ok(None);
    }
    let text = header(headers, NAME).unwrap_or_default();
    // Browsers that have not seen an event send an empty value.
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.parse().map(Some);
    parsed.map_err(|error| Error::BadRequest(format!("`Last-Event-ID`: {error}")))
}

impl Following {
    /// The next message; `None` when the stream ends.
    async fn next(&mut self) -> Option<Message> {
        if self.ready.is_empty() {
            let stop = self.api.events.stop.clone();
            let ends_at = self.ends_at;
            self.ready = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                () = sleep_until(ends_at) => return None,
                found = self.read() => found?,
            };
        }
        let event = self.ready.pop_front()?;
        self.filter.after = event.id;
        let message = Message::default().id(event.id.to_string()).event(event.kind.as_str());
        // Plain values always serialize to JSON.
        message.json_data(EventBody::from(&event)).ok()
    }

    /// Waits for further events; `None` when the caller may no longer read them or the catalog
    /// fails.
    async fn read(&mut self) -> Option<VecDeque<Event>> {
        loop {
            if self.proven_at.elapsed() >= self.api.events.limits.prove_every {
                self.identity.caller = auth::prove_again(&self.api, &self.identity).await?;
                self.proven_at = Instant::now();
            }
            let app = &self.api.app;
            let found = app.follow_events(&self.identity.caller, &self.filter, PIECE).await.ok()?;
            if !found.items.is_empty() {
                return Some(found.items.into());
            }
            // Skip the events of other projects; otherwise they would wake this stream repeatedly.
            self.filter.after = found.newest;
            let look = LOOK.min(self.api.events.limits.prove_every);
            let _ = timeout(look, app.catalog.wait_for_event(found.newest)).await;
        }
    }
}

//! What happens, as it happens: server-sent events.
//!
//! A stream is a list that goes on. It reads what is behind the last event that it sent, and waits
//! until this process records another, or a moment for those of other processes. It proves again and
//! again who follows, and ends with the permission, after its time, and when the service stops:
//! whoever comes back with `Last-Event-ID` misses nothing.

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

/// Events that are read at a time.
const PIECE: u32 = 100;
/// How often it is looked for what other processes have recorded.
const LOOK: Duration = Duration::from_secs(1);
/// When a client comes back after its stream has ended.
const RETRY: Duration = Duration::from_secs(2);
/// Proxies that collect an answer before they pass it on are asked not to.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Bounds of one stream.
#[derive(Debug, Clone, Copy)]
pub struct EventStreamLimits {
    /// Streams of the whole service that are open at a time. One project gets a quarter of them.
    pub open_max: usize,
    /// How long one goes on; its client comes back.
    pub lifetime: Duration,
    /// How long somebody whose permission has ended may go on.
    pub prove_every: Duration,
    /// How often something is sent where nothing happens.
    pub heartbeat: Duration,
}

impl EventStreamLimits {
    /// So many streams of this length, with the other bounds that suit most.
    pub fn new(open_max: usize, lifetime: Duration) -> Self {
        let (prove_every, heartbeat) = (Duration::from_secs(10), Duration::from_secs(15));
        Self { open_max, lifetime, prove_every, heartbeat }
    }
}

/// The streams of events that are open.
#[derive(Debug, Clone)]
pub struct EventStreams {
    limits: EventStreamLimits,
    slots: Arc<Semaphore>,
    of_projects: Concurrency,
    stop: CancellationToken,
}

impl EventStreams {
    /// None is open yet; all end with `stop`.
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

/// The place of one stream, until it is dropped.
struct Slot {
    _of_project: Running,
    _of_service: OwnedSemaphorePermit,
}

/// A stream that is open.
struct Following {
    api: Api,
    identity: Identity,
    /// Behind the last event that was sent.
    filter: EventFilter,
    ready: VecDeque<Event>,
    proven_at: Instant,
    ends_at: Instant,
    _slot: Slot,
}

/// One message of a stream, as those see it who read server-sent events.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) struct EventMessage {
    /// The number of the event.
    id: String,
    /// The kind of the event.
    event: String,
    /// What `ListEvents` tells of the event, as JSON.
    data: String,
}

/// Follow what happens in the project, as server-sent events
///
/// The id of a message is the number of its event, the name its kind, the data what `ListEvents`
/// tells of it. The stream ends from time to time; come back with `Last-Event-ID`.
#[utoipa::path(get, path = "/events/stream", operation_id = "FollowEvents", tag = "Events",
    params(EventStreamQuery, LastEventHeader),
    responses((status = 200, body = EventMessage, content_type = "text/event-stream",
        description = "What happens, until the client leaves or the stream's time is over")))]
pub(super) async fn follow(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Error> {
    open(api, identity, None, query.as_deref(), &headers).await
}

/// Follow what happens to an instance, as server-sent events
#[utoipa::path(get, path = "/instances/{instance_id}/events/stream",
    operation_id = "FollowInstanceEvents", tag = "Events",
    params(InstancePath, EventStreamQuery, LastEventHeader),
    responses((status = 200, body = EventMessage, content_type = "text/event-stream",
        description = "What happens, until the client leaves or the stream's time is over")))]
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
    let greeting = Message::default().retry(RETRY).comment("here is what happens");
    let messages = stream::unfold((Some(greeting), following), |(greeting, mut following)| async {
        let message = match greeting {
            Some(greeting) => greeting,
            None => following.next().await?,
        };
        Some((Ok::<_, Infallible>(message), (None, following)))
    });
    let heartbeat = KeepAlive::new().interval(limits.heartbeat).text("still here");
    let mut response = Sse::new(messages).keep_alive(heartbeat).into_response();
    response.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// Where a client that comes back has been.
fn last_event(headers: &HeaderMap) -> Result<Option<EventId>, Error> {
    const NAME: &str = "last-event-id";
    if !headers.contains_key(NAME) {
        return Ok(None);
    }
    let text = header(headers, NAME).unwrap_or_default();
    // Browsers that have seen no event yet say nothing there.
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
        // What is made of plain values always becomes JSON.
        message.json_data(EventBody::from(&event)).ok()
    }

    /// What has happened since, as soon as there is something; `None` where it may be told no more,
    /// or cannot be.
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
            // Behind what others have: else what they do would wake us for ever.
            self.filter.after = found.newest;
            let look = LOOK.min(self.api.events.limits.prove_every);
            let _ = timeout(look, app.catalog.wait_for_event(found.newest)).await;
        }
    }
}

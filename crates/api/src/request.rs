//! Layers around every request: its id, its log line, its limits.

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cachevault_domain::RequestId;
use tracing::Instrument;

use crate::Api;
use crate::gateway::GatewayError;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const HEADER_BYTES_MAX: usize = 32 << 10;
const HEADERS_MAX: usize = 100;
/// Maximum of bytes in path and query; clients send far less.
const URI_BYTES_MAX: usize = 16 << 10;

tokio::task_local! {
    /// The id of the current request.
    static CURRENT: RequestId;
}

/// The id of the current request; `None` outside of a request.
pub(crate) fn current() -> Option<RequestId> {
    CURRENT.try_with(Clone::clone).ok()
}

/// The id of the current request as text; empty outside of a request.
pub(crate) fn current_id() -> String {
    current().map(|id| id.to_string()).unwrap_or_default()
}

/// Assigns an id to the request. Every answer and log line contains it.
pub(crate) async fn identify(State(api): State<Api>, request: Request, next: Next) -> Response {
    let id = RequestId::mint(&*api.app.entropy);
    let span = tracing::info_span!("request", id = id.as_str());
    let started = api.app.clock.now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let header = HeaderValue::from_str(id.as_str());
    let answering = async move {
        let mut response = next.run(request).await;
        if let Ok(header) = header {
            response.headers_mut().insert(X_REQUEST_ID, header);
        }
        let status = response.status().as_u16();
        let duration_ms = api.app.clock.now().duration_since(started).as_millis();
        tracing::info!(%method, path, status, duration_ms, "answered");
        response
    };
    CURRENT.scope(id, answering.instrument(span)).await
}

/// Refuses requests with an oversized head and enforces the timeout.
pub(crate) async fn bound(State(api): State<Api>, request: Request, next: Next) -> Response {
    if let Err(error) = check_head(&request) {
        return error.into_response();
    }
    let answer = tokio::time::timeout(api.request_time_max, next.run(request)).await;
    answer.unwrap_or_else(|_| GatewayError::TimedOut.into_response())
}

fn check_head(request: &Request) -> Result<(), GatewayError> {
    let headers = request.headers();
    if uri_bytes(request.uri()) > URI_BYTES_MAX {
        return Err(GatewayError::UriTooLong);
    }
    let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    if headers.len() > HEADERS_MAX || headers.iter().map(size).sum::<usize>() > HEADER_BYTES_MAX {
        return Err(GatewayError::HeadersTooLarge);
    }
    // Proxies and services that pick different ones disagree about the host (RFC 9112, 3.2).
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(GatewayError::HostRepeated);
    }
    Ok(())
}

fn uri_bytes(uri: &Uri) -> usize {
    uri.path_and_query().map_or(0, |path| path.as_str().len())
}

//! `/download/…`: the files of backups, for whoever has a link. No header is needed.
//!
//! ```text
//! /download/<project>/<backup>/<shard>/<file name>?Expires=<seconds since 1970>&Signature=<hex>
//! ```
//!
//! Answers to `GET` and `HEAD`:
//!
//! | header | |
//! |---|---|
//! | `Content-Length` | of the RDB, or of the part that was asked for |
//! | `Content-Disposition` | the name under which to save it |
//! | `Accept-Ranges`, `Content-Range` | one range at a time; more are answered with the whole |
//! | `ETag` | strong: the SHA-256 of the stored artifact |
//! | `X-Cachevault-Rdb-Crc64` | the RDB's own CRC-64, 16 hexadecimal digits; left out where there is none |
//!
//! A link that was altered in any byte, is over, or whose backup is gone is a 403 that does not
//! say which. The end of a body, of a part too, is sent only when all of the RDB was compared with
//! its manifest: whoever has received as many bytes as were announced has the right ones.

mod body;
mod link;
mod range;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cachevault_app::{Download, RdbUnreadable, Ticket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::Api;
use crate::audit::{self, Claimed, DownloadRecord};
use crate::gateway::GatewayError;
use range::Range;

pub(crate) use link::{base, url};

const X_CACHEVAULT_RDB_CRC64: HeaderName = HeaderName::from_static("x-cachevault-rdb-crc64");

/// Bounds of the downloads that run at a time.
#[derive(Debug, Clone)]
pub struct Downloads {
    slots: Arc<Semaphore>,
    stall: Duration,
    /// Downloads that have ended, and whose record does not say so yet.
    pub(crate) ends: TaskTracker,
}

impl Downloads {
    /// At most `running_max` at a time; one whose client takes nothing for `stall` is broken off.
    pub fn new(running_max: usize, stall: Duration) -> Self {
        let slots = Arc::new(Semaphore::new(running_max));
        Self { slots, stall, ends: TaskTracker::new() }
    }

    /// Waits until the end of each that has ended is recorded.
    pub async fn are_recorded(&self) {
        self.ends.close();
        self.ends.wait().await;
    }
}

pub(crate) fn router() -> Router<Api> {
    // A link that lost all of its path is still none, rather than another address.
    Router::new().route("/download/{*link}", get(download)).route("/download/", get(download))
}

async fn download(
    State(api): State<Api>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<Response, GatewayError> {
    let found = find(&api, &uri).await;
    if let Err(error @ GatewayError::LinkRefused) = &found {
        let (request, claimed) = ((&method, &uri, &extensions), Claimed::Nobody);
        audit::record_refusal(&api, request, claimed, error.status_and_code()).await;
    }
    let (ticket, download) = found?;
    let mut response = described(&download);
    if method == Method::HEAD {
        return Ok(response);
    }
    let range = range::asked_for(&headers, &entity_tag(&download), download.size_bytes);
    let (first, end) = match range {
        Range::Whole => (0, download.size_bytes),
        Range::Part { first, end } => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let text = format!("bytes {first}-{}/{}", end - 1, download.size_bytes);
            insert(response.headers_mut(), header::CONTENT_RANGE, &text);
            insert(response.headers_mut(), header::CONTENT_LENGTH, &(end - first).to_string());
            (first, end)
        }
        Range::Unsatisfiable => return Ok(unsatisfiable(download.size_bytes)),
    };
    let slot = api.downloads.slots.clone().try_acquire_owned();
    let slot = slot.map_err(|_| GatewayError::TooManyDownloads)?;
    let mut record = DownloadRecord::begin(&api, &ticket.project, &uri, &extensions).await?;
    record.status = response.status();
    let span = tracing::info_span!("download", backup = %ticket.backup, shard = ticket.shard);
    let opening = open(&api, &download, first..end, slot, record);
    *response.body_mut() = opening.instrument(span).await?;
    Ok(response)
}

/// What a link opens.
async fn find(api: &Api, uri: &Uri) -> Result<(Ticket, Download), GatewayError> {
    let (ticket, signature) = link::parse(uri).ok_or(GatewayError::LinkRefused)?;
    let found = api.app.find_download(&ticket, &signature).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "a link cannot be looked up");
        GatewayError::Internal
    })?;
    found.map(|download| (ticket, download)).ok_or(GatewayError::LinkRefused)
}

async fn open(
    api: &Api,
    download: &Download,
    part: std::ops::Range<u64>,
    slot: OwnedSemaphorePermit,
    mut record: DownloadRecord,
) -> Result<Body, GatewayError> {
    // Between two pieces the store may stall, and the client.
    let error = match api.app.open_download(download, api.downloads.stall * 2).await {
        Ok(pieces) => return Ok(body::stream(pieces, part, api.downloads.stall, slot, record)),
        // Removed since it was looked up.
        Err(RdbUnreadable::Gone) => GatewayError::LinkRefused,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a download cannot begin");
            GatewayError::Internal
        }
    };
    let (status, code) = error.status_and_code();
    (record.status, record.error) = (status, Some(code));
    Err(error)
}

/// The answer with everything but its body.
fn described(download: &Download) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // Nobody in between may keep it: the link ends, and with it the right to the file.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    insert(headers, header::CONTENT_LENGTH, &download.size_bytes.to_string());
    insert(headers, header::ETAG, &entity_tag(download));
    let disposition = format!("attachment; filename=\"{}\"", download.file_name);
    insert(headers, header::CONTENT_DISPOSITION, &disposition);
    if let Some(crc64) = &download.crc64 {
        insert(headers, X_CACHEVAULT_RDB_CRC64, crc64);
    }
    response
}

fn entity_tag(download: &Download) -> String {
    format!("\"{}\"", download.entity)
}

fn unsatisfiable(size_bytes: u64) -> Response {
    let mut response = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    insert(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{size_bytes}"));
    response
}

/// Every value is made of what the service has written itself: digits, hexadecimal, harmless names.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

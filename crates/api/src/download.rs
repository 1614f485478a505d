//! Download of backup files by links, under `/download`. Requests need no headers.
//!
//! ```text
//! /download/<project>/<backup>/<shard>/<file name>?Expires=<seconds since 1970>&Signature=<hex>
//! ```
//!
//! Answers to `GET` and `HEAD`:
//!
//! | header | value |
//! |---|---|
//! | `Content-Length` | length of the RDB, or of the requested range |
//! | `Content-Disposition` | the file name for saving |
//! | `Accept-Ranges`, `Content-Range` | one range per request; several ranges return the whole file |
//! | `ETag` | strong: the SHA-256 of the stored artifact |
//! | `X-Cachevault-Rdb-Crc64` | the CRC-64 inside the RDB, 16 hexadecimal digits; omitted without one |
//!
//! An altered link, an expired link and a link to a removed backup all return the same 403. The last
//! bytes of a body, or of a range, are sent only after the whole RDB was compared with its manifest.
//! A complete download is therefore a correct one.

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

/// Limits of concurrent downloads.
#[derive(Debug, Clone)]
pub struct Downloads {
    slots: Arc<Semaphore>,
    stall: Duration,
    /// Ended downloads whose audit records are still being written.
    pub(crate) ends: TaskTracker,
}

impl Downloads {
    /// At most `running_max` downloads run at the same time. A download ends when its client takes
    /// no data for `stall`.
    pub fn new(running_max: usize, stall: Duration) -> Self {
        let slots = Arc::new(Semaphore::new(running_max));
        Self { slots, stall, ends: TaskTracker::new() }
    }

    /// Waits until the end of every ended download is recorded.
    pub async fn are_recorded(&self) {
        self.ends.close();
        self.ends.wait().await;
    }
}

pub(crate) fn router() -> Router<Api> {
    // A link without any path is an invalid link and not an unknown route.
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

/// The ticket of a link and the download that it grants.
async fn find(api: &Api, uri: &Uri) -> Result<(Ticket, Download), GatewayError> {
    let (ticket, signature) = link::parse(uri).ok_or(GatewayError::LinkRefused)?;
    let found = api.app.find_download(&ticket, &signature).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "cannot look up a download link");
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
    // The store and the client may each stall between two chunks.
    let error = match api.app.open_download(download, api.downloads.stall * 2).await {
        Ok(pieces) => return Ok(body::stream(pieces, part, api.downloads.stall, slot, record)),
        // The backup was removed after the lookup.
        Err(RdbUnreadable::Gone) => GatewayError::LinkRefused,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot begin a download");
            GatewayError::Internal
        }
    };
    let (status, code) = error.status_and_code();
    (record.status, record.error) = (status, Some(code));
    Err(error)
}

/// The answer without its body.
fn described(download: &Download) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // Caches must not keep the file: the right to it ends with the link.
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

/// All values come from the service itself: digits, hexadecimal digits and safe names.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

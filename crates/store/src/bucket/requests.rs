//! Requests that the library does not support: buckets and unfinished uploads.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use jiff::civil::DateTime;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpConnector, HttpRequestBody, ReqwestConnector};
use object_store::path::Path;
use object_store::{ClientOptions, MultipartId};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use quick_xml::de::from_reader;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::form_urlencoded;

use crate::bucket::BucketUrl;
use crate::bucket::failure::failed;
use crate::{StoreError, StoreErrorKind};

/// Maximum size of a response in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Clock difference from which on a refusal is attributed to it. Signatures are valid for 15
/// minutes, on some servers for 5.
const SKEW_MAX: SignedDuration = SignedDuration::from_mins(5);
/// Number of failures of a body with a wrong checksum that prove a comparison, while the server
/// accepts the right checksum.
const FAILURES_MIN: usize = 3;
/// Characters of a path to encode: all except those that S3 leaves unchanged.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Maximum number of lists of uploads, with a thousand uploads each.
const PAGES_MAX: usize = 100;

/// Signs and sends requests.
pub(super) struct Requests {
    client: HttpClient,
    credentials: AwsCredentialProvider,
    bucket_url: String,
    region: String,
    creates: bool,
    shown: String,
}

/// A response of a server.
struct Answer {
    status: StatusCode,
    body: Bytes,
    /// The clock difference, if it is too large for signatures.
    skew: Option<ClockSkew>,
}

/// The clocks of server and service differ by more than a signature permits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the clocks differ by {} s: the server's `Date` is {server}, and this machine signed at {own}; \
     correct the clock that is wrong",
    .server.duration_since(*.own).as_secs().unsigned_abs()
)]
pub(super) struct ClockSkew {
    server: Timestamp,
    own: Timestamp,
}

impl ClockSkew {
    /// The clock difference between the date of a signed request and the `Date` of its response.
    fn between(signed: &HeaderMap, answer: &HeaderMap) -> Option<Self> {
        let text = |headers: &HeaderMap, name: &str| {
            headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let own = DateTime::strptime("%Y%m%dT%H%M%SZ", text(signed, "x-amz-date")?).ok()?;
        let own = own.to_zoned(TimeZone::UTC).ok()?.timestamp();
        let server = rfc2822::parse(&text(answer, "date")?).ok()?.timestamp();
        let skew = Self { server, own };
        (server.duration_since(own).abs() >= SKEW_MAX).then_some(skew)
    }
}

impl Answer {
    /// Whether the server does not support this request. Some servers do not report this by the
    /// status.
    fn lacks_the_call(&self) -> bool {
        let said = String::from_utf8_lossy(&self.body);
        matches!(self.status, StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED)
            || self.status.is_client_error()
                && ["NotImplemented", "MethodNotAllowed"].iter().any(|code| said.contains(code))
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedUploads {
    #[serde(default)]
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
    #[serde(default)]
    upload: Vec<ListedUpload>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedUpload {
    key: String,
    upload_id: String,
    initiated: Option<Timestamp>,
}

impl ListedUpload {
    /// An upload without a start time may be in progress.
    fn was_begun_before(&self, moment: Option<Timestamp>) -> bool {
        moment.is_none_or(|moment| self.initiated.is_some_and(|at| at < moment))
    }
}

impl Requests {
    pub(super) fn new(
        url: &BucketUrl,
        credentials: AwsCredentialProvider,
        options: &ClientOptions,
        creates: bool,
    ) -> object_store::Result<Self> {
        Ok(Self {
            client: ReqwestConnector::default().connect(options)?,
            credentials,
            bucket_url: url.bucket_url(),
            region: url.region.clone(),
            creates,
            shown: url.to_string(),
        })
    }

    /// Whether this service creates a missing bucket.
    pub(super) fn creates(&self) -> bool {
        self.creates
    }

    /// Checks whether the bucket exists, and creates it if permitted.
    pub(super) async fn prepare_bucket(&self) -> Result<(), StoreError> {
        let answer = self.send("find", Method::HEAD, &self.bucket_url, Vec::new()).await?;
        match answer.status {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND if self.creates => self.create_bucket().await,
            _ => Err(self.refused("find", &answer)),
        }
    }

    /// The clock difference, if it is too large for signatures.
    pub(super) async fn clock_skew(&self) -> Option<ClockSkew> {
        let answer = self.send("find", Method::HEAD, &self.bucket_url, Vec::new()).await;
        answer.ok().and_then(|answer| answer.skew)
    }

    async fn create_bucket(&self) -> Result<(), StoreError> {
        let place = match self.region.as_str() {
            // The only region that a request must not name.
            "us-east-1" => String::new(),
            region => format!(
                "<CreateBucketConfiguration><LocationConstraint>{region}</LocationConstraint>\
                 </CreateBucketConfiguration>"
            ),
        };
        let answer = self.send("create", Method::PUT, &self.bucket_url, place.into_bytes()).await?;
        let is_ours = String::from_utf8_lossy(&answer.body).contains("BucketAlreadyOwnedByYou");
        if answer.status.is_success() || is_ours {
            return Ok(());
        }
        Err(self.refused("create", &answer))
    }

    /// Whether the server stores a body whose SHA-256 differs from the signed one. Error messages
    /// of servers differ, so a refusal counts if the server stores the same body under its own
    /// SHA-256. A single failure may be an accident, so it counts after several repetitions.
    pub(super) async fn takes_altered_body(&self, path: &Path) -> Result<bool, StoreError> {
        const ACTION: &str = "test the checksums of";
        const BODY: &[u8] = b"the sent body";
        let parts = path.parts().map(|part| utf8_percent_encode(part.as_ref(), PATH).to_string());
        let url = format!("{}/{}", self.bucket_url, parts.collect::<Vec<_>>().join("/"));
        let put = async |signed: &[u8]| {
            let sha256 = Sha256::digest(signed);
            let sent = (Method::PUT, BODY.to_vec());
            self.send_signed(ACTION, sent, &url, Some(&sha256)).await
        };
        for _ in 0..FAILURES_MIN {
            let altered = put(b"the signed body").await?;
            if altered.status.is_success() {
                return Ok(true);
            }
            let right = put(BODY).await?;
            if !right.status.is_success() {
                return Err(self.refused(ACTION, &right));
            }
            if altered.status.is_client_error() {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// The unfinished uploads in a folder; none if the server does not support such a list.
    pub(super) async fn unfinished(
        &self,
        folder: &Path,
        begun_before: Option<Timestamp>,
    ) -> Result<Vec<(Path, MultipartId)>, StoreError> {
        const ACTION: &str = "list unfinished uploads of";
        let mut found = Vec::new();
        let mut markers: Option<(String, String)> = None;
        for _ in 0..PAGES_MAX {
            let query = uploads_query(folder, markers.as_ref());
            let url = format!("{}?{query}", self.bucket_url);
            let answer = self.send(ACTION, Method::GET, &url, Vec::new()).await?;
            if answer.lacks_the_call() {
                return Ok(Vec::new());
            }
            if !answer.status.is_success() {
                return Err(self.refused(ACTION, &answer));
            }
            let listed: ListedUploads = from_reader(&answer.body[..]).map_err(|error| {
                StoreError::io(ACTION, &self.shown, std::io::Error::other(error))
            })?;
            let begun = listed.upload.into_iter().filter(|u| u.was_begun_before(begun_before));
            // The unmodified key. A key that is no valid path does not belong to this service.
            let within =
                begun.filter_map(|upload| Some((Path::parse(upload.key).ok()?, upload.upload_id)));
            found.extend(within.filter(|(path, _)| path.prefix_matches(folder)));
            markers = listed.next_key_marker.zip(listed.next_upload_id_marker);
            if !listed.is_truncated || markers.is_none() {
                return Ok(found);
            }
        }
        tracing::warn!(
            store = self.shown,
            "too many unfinished uploads for one run; the next run removes the rest"
        );
        Ok(found)
    }

    async fn send(
        &self,
        action: &'static str,
        method: Method,
        url: &str,
        body: Vec<u8>,
    ) -> Result<Answer, StoreError> {
        self.send_signed(action, (method, body), url, None).await
    }

    /// Sends a request that is signed with this SHA-256 instead of the body's own.
    async fn send_signed(
        &self,
        action: &'static str,
        (method, body): (Method, Vec<u8>),
        url: &str,
        sha256: Option<&[u8]>,
    ) -> Result<Answer, StoreError> {
        let told = |error: Cause| StoreError::io(action, &self.shown, std::io::Error::other(error));
        let credential = self.credentials.get_credential().await;
        let credential = credential.map_err(|error| failed(action, &self.shown, error))?;
        let request = Request::builder().method(method).uri(url);
        let mut request = request.body(HttpRequestBody::from(body)).map_err(|e| told(e.into()))?;
        AwsAuthorizer::new(&credential, "s3", &self.region)
            .try_authorize(&mut request, sha256)
            .map_err(|error| failed(action, &self.shown, error))?;
        let signed = request.headers().clone();
        let answer = self.client.execute(request).await.map_err(|e| told(e.into()))?;
        let (status, skew) = (answer.status(), ClockSkew::between(&signed, answer.headers()));
        let body = answer.into_body().bytes().await.map_err(|e| told(e.into()))?;
        if body.len() > ANSWER_BYTES_MAX {
            return Err(told("the response is too long".into()));
        }
        Ok(Answer { status, body, skew })
    }

    fn refused(&self, action: &'static str, answer: &Answer) -> StoreError {
        let kind = match answer.status {
            StatusCode::NOT_FOUND => StoreErrorKind::NoBucket,
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => StoreErrorKind::Denied,
            StatusCode::CONFLICT => StoreErrorKind::Conflict,
            _ => StoreErrorKind::Unavailable,
        };
        if let (StoreErrorKind::Denied, Some(skew)) = (kind, &answer.skew) {
            let (object, source) = (self.shown.clone(), Some(skew.clone().into()));
            return StoreError { kind, action, object, source };
        }
        let said = String::from_utf8_lossy(&answer.body[..answer.body.len().min(500)]).into_owned();
        let source = Some(format!("the server responds {} {said}", answer.status).into());
        StoreError { kind, action, object: self.shown.clone(), source }
    }
}

fn uploads_query(folder: &Path, markers: Option<&(String, String)>) -> String {
    let mut query = form_urlencoded::Serializer::new("uploads=".to_owned());
    query.append_pair("prefix", folder.as_ref());
    if let Some((key, upload)) = markers {
        query.append_pair("key-marker", key).append_pair("upload-id-marker", upload);
    }
    // Some servers do not decode a plus sign as a space.
    query.finish().replace('+', "%20")
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_list_of_uploads_is_distinguished_from_a_refused_one() {
        for (status, body, lacks) in [
            (501, "", true),
            (405, "", true),
            (400, "<Error><Code>NotImplemented</Code></Error>", true),
            (403, "<Error><Code>AccessDenied</Code></Error>", false),
            (400, "", false),
            (200, "<Key>NotImplemented</Key>", false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let answer = Answer { status, body: Bytes::from_static(body.as_bytes()), skew: None };
            assert_eq!(answer.lacks_the_call(), lacks, "{status} {body}");
        }
    }
}

//! Errors before a request reaches an API: authentication, routing, limits.
//!
//! The format is that of the vendor's gateway, the same for every version: `{"error_msg",
//! "error_code": "APIGW.NNNN", "request_id"}`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use crate::audit::ErrorCode;
use crate::request::current_id;

/// The `Retry-After` of an overloaded service.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("10");

/// A request refused before it reaches an API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GatewayError {
    #[error("The API does not exist or has not been published in the environment")]
    UnknownRoute,
    #[error("Request entity too large")]
    BodyTooLarge,
    #[error("Request header too large")]
    HeadersTooLarge,
    #[error("Request URI too long")]
    UriTooLong,
    #[error("Bad request: more than one Host header; send one")]
    HostRepeated,
    #[error("Bad request: the request body could not be read")]
    BodyUnreadable,
    #[error("Incorrect IAM authentication information: {0}")]
    Unauthenticated(AuthFailure),
    #[error(
        "The throttling threshold has been reached: too many wrong credentials from this address"
    )]
    TooManyFailures { retry_after_seconds: u64 },
    #[error("The project is disabled")]
    ProjectUnavailable,
    #[error("Invalid or expired download link; request a new one")]
    LinkRefused,
    #[error("Too many downloads are running; retry later")]
    TooManyDownloads,
    #[error("Throttled: too many concurrent requests; retry later")]
    TooManyAtOnce,
    #[error("Throttled: too many open event streams; retry later")]
    TooManyStreams,
    #[error("Backend timed out")]
    TimedOut,
    #[error("Internal error")]
    Internal,
}

/// An authentication failure, in the vendor's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthFailure {
    #[error("x-auth-token not found")]
    NoCredentials,
    #[error("decrypt token fail")]
    BadToken,
    #[error("token expires, expires_at: {at}")]
    TokenExpired { at: String },
    #[error("AK access failed to reach the limit,forbidden")]
    KeyLocked,
    #[error("calc ak sk signature fail:{0}")]
    Malformed(&'static str),
    #[error(
        "calc ak sk signature fail:signature expired, signature time:{signed},server time:{server}"
    )]
    Expired { signed: String, server: String },
    #[error("Get secretKey failed")]
    UnknownKey,
    #[error("verify aksk signature fail")]
    WrongSignature,
}

impl GatewayError {
    /// Whether the credentials were wrong, or refused because of earlier wrong ones. Late and
    /// unreadable requests do not count as attempts to guess.
    pub(crate) fn is_wrong_proof(&self) -> bool {
        use AuthFailure::{BadToken, KeyLocked, UnknownKey, WrongSignature};
        match self {
            Self::Unauthenticated(failure) => {
                matches!(failure, BadToken | KeyLocked | UnknownKey | WrongSignature)
            }
            Self::TooManyFailures { .. } => true,
            _ => false,
        }
    }

    /// The value of `Retry-After`, where one is known.
    pub(crate) fn retry_after(&self) -> Option<HeaderValue> {
        match self {
            Self::TooManyDownloads | Self::TooManyAtOnce | Self::TooManyStreams => {
                Some(RETRY_AFTER_SECONDS)
            }
            Self::TooManyFailures { retry_after_seconds } => Some((*retry_after_seconds).into()),
            _ => None,
        }
    }

    pub(crate) fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::UnknownRoute => (StatusCode::NOT_FOUND, "APIGW.0101"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "APIGW.0201"),
            Self::HeadersTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "APIGW.0201"),
            Self::UriTooLong => (StatusCode::URI_TOO_LONG, "APIGW.0201"),
            Self::HostRepeated => (StatusCode::BAD_REQUEST, "APIGW.0201"),
            Self::BodyUnreadable => (StatusCode::BAD_REQUEST, "APIGW.0201"),
            Self::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, "APIGW.0301"),
            Self::TooManyFailures { .. } => (StatusCode::TOO_MANY_REQUESTS, "APIGW.0308"),
            Self::ProjectUnavailable => (StatusCode::FORBIDDEN, "APIGW.0310"),
            Self::LinkRefused => (StatusCode::FORBIDDEN, "APIGW.0302"),
            Self::TooManyDownloads => (StatusCode::SERVICE_UNAVAILABLE, "APIGW.0201"),
            Self::TooManyAtOnce | Self::TooManyStreams => {
                (StatusCode::TOO_MANY_REQUESTS, "APIGW.0308")
            }
            Self::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "APIGW.0201"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "APIGW.0601"),
        }
    }
}

/// An error before a request reaches an API.
#[derive(Serialize, ToSchema)]
pub(crate) struct GatewayBody {
    #[schema(example = "Incorrect IAM authentication information: verify aksk signature fail")]
    error_msg: String,
    #[schema(example = "APIGW.0301", pattern = "^APIGW\\.[0-9]{4}$")]
    error_code: &'static str,
    request_id: String,
}

impl IntoResponse for GatewayError {
    fn into_response(self) -> Response {
        let (status, error_code) = self.status_and_code();
        let body =
            GatewayBody { error_msg: self.to_string(), error_code, request_id: current_id() };
        let mut response = (status, Extension(ErrorCode(error_code)), Json(body)).into_response();
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

/// The answer for an unknown route or method.
pub(crate) async fn unknown_route() -> GatewayError {
    GatewayError::UnknownRoute
}

//! Errors in the format of Keystone: `{"error": {"code", "message", "title"}}`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use cachevault_app::{AccessError, AppError};
use serde_json::json;

use crate::audit::ErrorCode;
use crate::gateway::GatewayError;

/// An error for a client of Keystone.
#[derive(Debug)]
pub(crate) enum Error {
    /// The request is invalid, with the reason.
    BadRequest(String),
    /// The credentials are wrong. The answer does not say why.
    Unauthorized,
    /// The path does not exist.
    NotFound,
    /// The caller may not see such a token.
    TokenNotFound,
    /// The authenticated caller lacks the permission, with the reason.
    Forbidden(AccessError),
    /// The request was refused before it reached Keystone.
    Gateway(GatewayError),
    /// The service failed.
    Internal,
}

impl From<AppError> for Error {
    fn from(error: AppError) -> Self {
        match error {
            AppError::Access(AccessError::SignInRefused) => return Self::Unauthorized,
            AppError::Access(error @ AccessError::TokenChain) => return Self::Forbidden(error),
            _ => {}
        }
        // Logged once, here. The client never sees an internal cause.
        tracing::error!(error = &error as &dyn std::error::Error, "request failed");
        Self::Internal
    }
}

impl From<GatewayError> for Error {
    fn from(error: GatewayError) -> Self {
        Self::Gateway(error)
    }
}

impl Error {
    /// The HTTP status, and the error code of the audit record. Keystone itself has no codes.
    pub(super) fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::TokenNotFound => (StatusCode::NOT_FOUND, "token_not_found"),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
            Self::Gateway(error) => error.status_and_code(),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }

    /// Whether the credentials were wrong.
    pub(super) fn is_wrong_proof(&self) -> bool {
        match self {
            Self::Unauthorized => true,
            Self::Gateway(error) => error.is_wrong_proof(),
            _ => false,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::BadRequest(reason) => reason.clone(),
            Self::Unauthorized => "The request you have made requires authentication.".to_owned(),
            Self::NotFound => "The resource could not be found.".to_owned(),
            Self::TokenNotFound => "This is not a recognized token.".to_owned(),
            Self::Forbidden(error) => error.to_string(),
            Self::Gateway(error) => error.to_string(),
            Self::Internal => "An unexpected error occurred.".to_owned(),
        }
    }

    fn retry_after(&self) -> Option<HeaderValue> {
        match self {
            Self::Gateway(error) => error.retry_after(),
            _ => None,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let ((status, code), message) = (self.status_and_code(), self.message());
        let title = status.canonical_reason().unwrap_or_default();
        let error = json!({"code": status.as_u16(), "message": message, "title": title});
        let body = Json(json!({"error": error}));
        let mut response = (status, Extension(ErrorCode(code)), body).into_response();
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

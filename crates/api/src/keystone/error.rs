//! Errors as Keystone writes them: `{"error": {"code", "message", "title"}}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cachevault_app::{AccessError, AppError};
use serde_json::json;

use crate::gateway::GatewayError;

/// An error on its way to a client of Keystone.
#[derive(Debug)]
pub(crate) enum Error {
    /// The request is not one that can be understood; says why.
    BadRequest(String),
    /// Who asks has not proven who it is; what was wrong is not told.
    Unauthorized,
    /// There is nothing at this path.
    NotFound,
    /// The token is none that the caller may see.
    TokenNotFound,
    /// Refused before Keystone.
    Gateway(GatewayError),
    /// The service failed.
    Internal,
}

impl From<AppError> for Error {
    fn from(error: AppError) -> Self {
        if let AppError::Access(AccessError::SignInRefused) = error {
            return Self::Unauthorized;
        }
        // Logged once, here; the client never sees an internal cause.
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
    fn answer(&self) -> (StatusCode, String) {
        match self {
            Self::BadRequest(reason) => (StatusCode::BAD_REQUEST, reason.clone()),
            Self::Unauthorized => {
                let message = "The request you have made requires authentication.";
                (StatusCode::UNAUTHORIZED, message.to_owned())
            }
            Self::NotFound => {
                (StatusCode::NOT_FOUND, "The resource could not be found.".to_owned())
            }
            Self::TokenNotFound => {
                (StatusCode::NOT_FOUND, "This is not a recognized token.".to_owned())
            }
            Self::Gateway(error) => (error.status_and_code().0, error.to_string()),
            Self::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "An unexpected error occurred.".to_owned())
            }
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
        let (status, message) = self.answer();
        let title = status.canonical_reason().unwrap_or_default();
        let error = json!({"code": status.as_u16(), "message": message, "title": title});
        let mut response = (status, Json(json!({"error": error}))).into_response();
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

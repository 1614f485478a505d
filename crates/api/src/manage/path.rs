//! Extractor for the last path segment.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::error::Error;

/// The only path parameter, as text.
pub(crate) struct PathId(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(id)| Self(id)).map_err(|_| Error::BadRequest("the path is not UTF-8".into()))
    }
}

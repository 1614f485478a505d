//! `GET`, `HEAD` and `DELETE /v3/auth/tokens` for the token in `X-Subject-Token`.

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::{Extension, Json};

use super::body::{subject_token, token_body};
use super::catalog::wants_catalog;
use super::error::Error;
use crate::Api;
use crate::auth::{Identity, header};
use crate::download::base;

pub(super) async fn show(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Error> {
    let text = subject(&headers)?;
    let found = api.app.show_token(&identity.caller, text).await?;
    let detail = found.map_err(|_| Error::TokenNotFound)?;
    let catalog = wants_catalog(query.as_deref()).then(|| base(&api, &headers));
    let body = token_body(&api, &detail, catalog.as_deref());
    Ok((subject_token(text), Json(body)))
}

pub(super) async fn revoke(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
) -> Result<StatusCode, Error> {
    match api.app.revoke_token(&identity.caller, subject(&headers)?).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Error::TokenNotFound),
    }
}

fn subject(headers: &HeaderMap) -> Result<&str, Error> {
    header(headers, "x-subject-token")
        .ok_or_else(|| Error::BadRequest("the header X-Subject-Token is missing".to_owned()))
}

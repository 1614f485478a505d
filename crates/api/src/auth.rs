//! Proves who sent a request: its signature, checked before its body is believed.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cachevault_domain::{Caller, ProjectId};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};

use crate::gateway::{AuthFailure, GatewayError};
use crate::signing::{Authorization, Dialect, SignedRequest};
use crate::{Api, BODY_BYTES_MAX};

/// How far a signature's date may be from our clock, either way.
const CLOCK_WINDOW: SignedDuration = SignedDuration::from_mins(15);

/// Who sent a request.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The project that the credential opens, and what it allows.
    pub(crate) caller: Caller,
    /// The project that the request names in a header of its own.
    pub(crate) named_project: Option<String>,
}

/// Lets a request through only when its signature is good.
pub(crate) async fn authenticate(State(api): State<Api>, request: Request, next: Next) -> Response {
    match check(&api, request).await {
        Ok(request) => next.run(request).await,
        Err(error) => {
            if error != GatewayError::Internal {
                tracing::info!(reason = %error, "refused");
            }
            error.into_response()
        }
    }
}

async fn check(api: &Api, request: Request) -> Result<Request, GatewayError> {
    let (mut parts, body) = request.into_parts();
    let authorization = authorization(&parts.headers).map_err(GatewayError::Unauthenticated)?;
    check_date(&parts.headers, &authorization, api.app.clock.now())
        .map_err(GatewayError::Unauthenticated)?;
    let (project, secret_key) = find_key(api, &authorization).await?;
    // Only now, for a key that is known, is anything large taken into memory.
    let body = read_body(&parts.headers, body).await?;
    if !verifies(&parts, &body, &authorization, &secret_key) {
        return Err(GatewayError::Unauthenticated(AuthFailure::WrongSignature));
    }
    let named_project = header(&parts.headers, "x-project-id").map(str::to_owned);
    parts.extensions.insert(Identity { caller: Caller::service(project), named_project });
    Ok(Request::from_parts(parts, Body::from(body)))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn authorization(headers: &HeaderMap) -> Result<Authorization, AuthFailure> {
    match header(headers, "authorization") {
        Some(value) => Authorization::parse(value).map_err(|error| AuthFailure::Malformed(error.0)),
        None if headers.contains_key("x-auth-token") => Err(AuthFailure::BadToken),
        None => Err(AuthFailure::NoCredentials),
    }
}

fn check_date(
    headers: &HeaderMap,
    authorization: &Authorization,
    now: Timestamp,
) -> Result<(), AuthFailure> {
    let text = header(headers, "x-sdk-date").ok_or(AuthFailure::Malformed("no x-sdk-date"))?;
    let signed_at = parse_date(text).ok_or(AuthFailure::Malformed("malformed x-sdk-date"))?;
    if let Dialect::Credential { date, .. } = &authorization.dialect
        && !text.starts_with(date.as_str())
    {
        return Err(AuthFailure::Malformed("the scope is of another day than x-sdk-date"));
    }
    if now.duration_since(signed_at).abs() > CLOCK_WINDOW {
        return Err(AuthFailure::Expired {
            signed: text.to_owned(),
            server: now.strftime("%Y%m%dT%H%M%SZ").to_string(),
        });
    }
    Ok(())
}

/// `yyyyMMddTHHmmssZ`.
fn parse_date(text: &str) -> Option<Timestamp> {
    let civil = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

async fn find_key(
    api: &Api,
    authorization: &Authorization,
) -> Result<(ProjectId, SecretString), GatewayError> {
    let unknown = || GatewayError::Unauthenticated(AuthFailure::UnknownKey);
    let access_key = authorization.access_key.parse().map_err(|_| unknown())?;
    let found = api.app.find_secret_key(&access_key).await.map_err(|error| {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "credentials cannot be looked up"
        );
        GatewayError::Internal
    })?;
    found.ok_or_else(unknown)
}

async fn read_body(headers: &HeaderMap, body: Body) -> Result<Bytes, GatewayError> {
    let declared = header(headers, "content-length").and_then(|length| length.parse::<u64>().ok());
    if declared.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(GatewayError::BodyTooLarge);
    }
    axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| {
        let too_large = std::error::Error::source(&error)
            .is_some_and(|source| source.to_string().contains("length limit"));
        if too_large { GatewayError::BodyTooLarge } else { GatewayError::BodyUnreadable }
    })
}

fn verifies(
    parts: &Parts,
    body: &[u8],
    authorization: &Authorization,
    secret_key: &SecretString,
) -> bool {
    let headers: Vec<_> = parts
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
        .collect();
    let request = SignedRequest {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        headers: &headers,
        body,
    };
    authorization.verifies(&request, secret_key.expose_secret())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_basic_form_is_a_date() {
        assert_eq!(parse_date("20191115T033655Z").unwrap().to_string(), "2019-11-15T03:36:55Z");
        for text in
            ["", "2019-11-15T03:36:55Z", "20191115T033655", "20191315T033655Z", "20191115T033655Zx"]
        {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }
}

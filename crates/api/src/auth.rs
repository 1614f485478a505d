//! Authenticates a request by its signature or its token. The signature is checked before the body
//! is trusted.
//!
//! A request with both is authenticated by the signature. Repeated failures are counted against the
//! sender: see [`crate::throttle`].

use std::net::IpAddr;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cachevault_app::{AppError, KeyProof, TokenRefusal};
use cachevault_domain::{Caller, Subject};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};

use crate::audit::{self, Claimed};
use crate::client::client_address;
use crate::concurrency::Running;
use crate::gateway::{AuthFailure, GatewayError};
use crate::large_bodies::Reader;
use crate::signing::{Authorization, Dialect, SignedRequest};
use crate::throttle::{Target, Throttled};
use crate::{Api, BODY_BYTES_MAX};

/// No client of the APIs sends a larger body, although the gateway's limit allows it.
const SMALL_BODY_BYTES: u64 = 64 << 10;

/// The maximum difference between a signature's date and the service's clock.
const CLOCK_WINDOW: SignedDuration = SignedDuration::from_mins(15);

/// The authenticated sender of a request.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The caller, with its project and permissions.
    pub(crate) caller: Caller,
    /// The project that the `X-Project-Id` header names.
    pub(crate) named_project: Option<String>,
    /// The token that authenticated the request; absent when a signature did.
    token: Option<SecretString>,
}

/// Passes a request on only when its sender is authenticated.
pub(crate) async fn authenticate(State(api): State<Api>, request: Request, next: Next) -> Response {
    match prove(&api, request).await {
        Ok(request) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Reads the body and adds the authenticated [`Identity`] to the request.
pub(crate) async fn prove(api: &Api, request: Request) -> Result<Request, GatewayError> {
    let proven = check(api, request).await;
    if let Err(error) = &proven
        && *error != GatewayError::Internal
    {
        tracing::info!(reason = %error, "refused");
    }
    proven
}

async fn check(api: &Api, request: Request) -> Result<Request, GatewayError> {
    let (mut parts, body) = request.into_parts();
    let address = client_address(&parts.extensions);
    let is_signed = parts.headers.contains_key(AUTHORIZATION);
    let mut claimed = Claimed::default();
    let checked = match is_signed {
        true => check_signature(api, &parts, body, address, &mut claimed).await,
        false => check_token(api, &parts.headers, body, address).await,
    };
    if let Err(error) = &checked
        && error.is_wrong_proof()
    {
        let request = (&parts.method, &parts.uri, &parts.extensions);
        audit::record_refusal(api, request, claimed, error.status_and_code()).await;
    }
    let (caller, body) = checked?;
    let token = header(&parts.headers, "x-auth-token").filter(|_| !is_signed);
    let token = token.map(|token| token.to_owned().into());
    let named_project = header(&parts.headers, "x-project-id").map(str::to_owned);
    parts.extensions.insert(Identity { caller, named_project, token });
    Ok(Request::from_parts(parts, Body::from(body)))
}

/// Authenticates the sender of a long answer again. `None` means that the credentials are no longer
/// valid or cannot be checked.
pub(crate) async fn prove_again(api: &Api, identity: &Identity) -> Option<Caller> {
    let found = match (&identity.token, identity.caller.subject()) {
        (Some(token), _) => {
            let found = api.app.find_caller(token.expose_secret()).await;
            found.map(Result::ok)
        }
        (None, Subject::Key { access_key, .. }) => {
            let found = api.app.find_key(access_key).await;
            found.map(|key| key.filter(|key| key.project_enabled).map(|key| key.caller))
        }
        (None, _) => Ok(None),
    };
    found.unwrap_or_else(|error| {
        internal(&error);
        None
    })
}

async fn check_signature(
    api: &Api,
    parts: &Parts,
    body: Body,
    address: Option<IpAddr>,
    claimed: &mut Claimed,
) -> Result<(Caller, Bytes), GatewayError> {
    let authorization = header(&parts.headers, AUTHORIZATION.as_str()).unwrap_or_default();
    let authorization = Authorization::parse(authorization)
        .map_err(|error| GatewayError::Unauthenticated(AuthFailure::Malformed(error.0)))?;
    check_date(&parts.headers, &authorization, api.app.clock.now())
        .map_err(GatewayError::Unauthenticated)?;
    if parts.headers.contains_key("x-security-token") {
        // Security tokens belong to temporary keys, which this service does not issue.
        return Err(GatewayError::Unauthenticated(AuthFailure::BadToken));
    }
    let target = Target::Key(authorization.access_key.clone());
    let now = api.app.clock.now();
    let found = find_key(api, &authorization).await?;
    if let Some(key) = &found {
        *claimed = Claimed::Holder(key.caller.clone());
    }
    api.throttle.check(Some(&target), address, now).map_err(throttled)?;
    let Some(key) = found else {
        // An unknown key is not locked. The address limit bounds the number of attempts.
        api.throttle.settle(None, address, now, false).map_err(throttled)?;
        return Err(GatewayError::Unauthenticated(AuthFailure::UnknownKey));
    };
    // Memory for a large body is allocated only for a known key.
    let body = read_body(api, &parts.headers, body, Reader::Unproven(address)).await?;
    let is_right = verifies(parts, &body, &authorization, &key.secret_key);
    let now = api.app.clock.now();
    api.throttle.settle(Some(&target), address, now, is_right).map_err(throttled)?;
    match (is_right, key.project_enabled) {
        (false, _) => Err(GatewayError::Unauthenticated(AuthFailure::WrongSignature)),
        (true, false) => Err(GatewayError::ProjectUnavailable),
        (true, true) => Ok((key.caller, body)),
    }
}

async fn check_token(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
    address: Option<IpAddr>,
) -> Result<(Caller, Bytes), GatewayError> {
    let text = headers.get("x-auth-token");
    let text = text.ok_or(GatewayError::Unauthenticated(AuthFailure::NoCredentials))?;
    let text = text.to_str().unwrap_or_default();
    let _turn = wait_for_keystone(api, text, address).await?;
    let found = api.app.find_caller(text).await;
    let wrong = || api.throttle.settle(None, address, api.app.clock.now(), false);
    if let Err(AppError::KeystoneFailed(_)) = &found {
        // The token may be valid. Guessing must still be counted while Keystone cannot answer.
        wrong().map_err(throttled)?;
    }
    match found.map_err(|error| internal(&error))? {
        Ok(caller) => Ok((caller, read_body(api, headers, body, Reader::Proven).await?)),
        Err(TokenRefusal::Unknown) => {
            wrong().map_err(throttled)?;
            Err(GatewayError::Unauthenticated(AuthFailure::BadToken))
        }
        Err(TokenRefusal::Expired { at }) => {
            let at = at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
            Err(GatewayError::Unauthenticated(AuthFailure::TokenExpired { at }))
        }
        Err(TokenRefusal::ProjectDisabled) => Err(GatewayError::ProjectUnavailable),
    }
}

/// Limits the rate of questions to an external Keystone for an address that guesses tokens.
async fn wait_for_keystone(
    api: &Api,
    text: &str,
    address: Option<IpAddr>,
) -> Result<Option<Running>, GatewayError> {
    let now = api.app.clock.now();
    if api.app.foreign_tokens.is_none() || !api.throttle.is_over(address, now) {
        return Ok(None);
    }
    let own = api.app.find_token(text).await.map_err(|error| internal(&error))?;
    if !matches!(own, Err(TokenRefusal::Unknown)) {
        return Ok(None);
    }
    let turn = api.throttle.begin_sign_in(address).ok_or(GatewayError::TooManyAtOnce)?;
    api.throttle.pace(address, now).await;
    Ok(Some(turn))
}

pub(crate) fn throttled(throttled: Throttled) -> GatewayError {
    match throttled {
        Throttled::Locked => GatewayError::Unauthenticated(AuthFailure::KeyLocked),
        Throttled::Address { retry_after_seconds } => {
            GatewayError::TooManyFailures { retry_after_seconds }
        }
    }
}

fn internal(error: &AppError) -> GatewayError {
    tracing::error!(error = error as &dyn std::error::Error, "cannot look up credentials");
    GatewayError::Internal
}

pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
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
) -> Result<Option<KeyProof>, GatewayError> {
    let Ok(access_key) = authorization.access_key.parse() else { return Ok(None) };
    api.app.find_key(&access_key).await.map_err(|error| internal(&error))
}

async fn read_body(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
    reader: Reader,
) -> Result<Bytes, GatewayError> {
    let declared = header(headers, "content-length").and_then(|length| length.parse::<u64>().ok());
    if declared.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(GatewayError::BodyTooLarge);
    }
    let is_small = match declared {
        Some(length) => length <= SMALL_BODY_BYTES,
        // A request without a body has no Content-Length header.
        None => body.is_end_stream(),
    };
    if is_small {
        return read_all(body).await;
    }
    let place = api.large_bodies.take(reader).ok_or(GatewayError::TooManyAtOnce)?;
    tokio::select! {
        read = read_all(body) => read,
        () = place.lost() => Err(GatewayError::TooManyAtOnce),
    }
}

async fn read_all(body: Body) -> Result<Bytes, GatewayError> {
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

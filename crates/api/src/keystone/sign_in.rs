//! `POST /v3/auth/tokens`.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{Extensions, HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cachevault_app::{
    AccessError, AppError, PasswordTurn, ProjectKey, Proof, TokenDetail, UserKey, WantedScope,
};
use cachevault_domain::NewAuditRecord;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::body::{subject_token, token_body};
use super::catalog::wants_catalog;
use super::error::Error;
use super::is_domain;
use crate::Api;
use crate::audit::{self, Claimed};
use crate::auth::throttled;
use crate::client::client_address;
use crate::download::base;
use crate::gateway::GatewayError;
use crate::request;
use crate::throttle::{Target, Throttled};

#[derive(Deserialize)]
struct Body {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    identity: IdentityBody,
    #[serde(default)]
    scope: Option<Scope>,
}

#[derive(Deserialize)]
struct IdentityBody {
    methods: Vec<String>,
    password: Option<PasswordMethod>,
    token: Option<TokenMethod>,
}

#[derive(Deserialize)]
struct PasswordMethod {
    user: UserBody,
}

#[derive(Deserialize)]
struct UserBody {
    id: Option<String>,
    name: Option<String>,
    domain: Option<Named>,
    password: SecretString,
}

#[derive(Deserialize)]
struct TokenMethod {
    id: SecretString,
}

#[derive(Deserialize)]
struct Named {
    id: Option<String>,
    name: Option<String>,
}

impl Named {
    fn is_our_domain(&self) -> bool {
        is_domain(self.id.as_deref(), self.name.as_deref())
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scope {
    Project {
        project: ScopedProject,
    },
    Domain {
        domain: Named,
    },
    Unscoped {
        #[serde(rename = "unscoped")]
        _unscoped: serde_json::Value,
    },
    /// The plain word, as some clients send it.
    Word(String),
}

#[derive(Deserialize)]
struct ScopedProject {
    id: Option<String>,
    name: Option<String>,
    domain: Option<Named>,
}

pub(super) async fn sign_in(
    State(api): State<Api>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    extensions: Extensions,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Error> {
    let body = body.map_err(|rejection| Error::BadRequest(rejection.body_text()))?;
    let Body { auth } = serde_json::from_slice(&body).map_err(|error| {
        // The error names only the position: the text contains a password.
        let (line, column) = (error.line(), error.column());
        Error::BadRequest(format!("invalid request body at {line}:{column}"))
    })?;
    let address = client_address(&extensions);
    let named = auth.identity.named(&api).await?;
    let proven = prove(&api, auth, named.as_ref(), address).await;
    if let Err(error) = &proven
        && error.is_wrong_proof()
    {
        let claimed = named.map(|named| named.claimed).unwrap_or_default();
        let request = (&method, &uri, &extensions);
        audit::record_refusal(&api, request, claimed, error.status_and_code()).await;
    }
    let (text, detail) = proven?;
    record_sign_in(&api, &detail, address).await?;
    tracing::info!(user = %detail.user.name, "signed in");
    let catalog = wants_catalog(uri.query()).then(|| base(&api, &headers));
    let body = Json(token_body(&api, &detail, catalog.as_deref()));
    Ok((StatusCode::CREATED, subject_token(text.expose_secret()), body).into_response())
}

/// Verifies the login and creates a token.
async fn prove(
    api: &Api,
    auth: Auth,
    named: Option<&NamedUser>,
    address: Option<IpAddr>,
) -> Result<(SecretString, TokenDetail), Error> {
    let target = named.map(|named| &named.target);
    let check = || api.throttle.check(target, address, api.app.clock.now());
    check().map_err(refused)?;
    let _running = api.throttle.begin_sign_in(address).ok_or(GatewayError::TooManyAtOnce)?;
    api.throttle.pace(address, api.app.clock.now()).await;
    let proof = auth.identity.proof(api).await?;
    // Other attempts may have failed while this one waited for its turn.
    check().map_err(refused)?;
    // An impossible scope is refused like a scope that the user does not have.
    let scope = wanted(auth.scope);
    let signed_in = match scope {
        Some(scope) => api.app.sign_in(proof, scope).await,
        None => Err(AccessError::SignInRefused.into()),
    };
    if let Ok(_) | Err(AppError::Access(AccessError::SignInRefused)) = &signed_in {
        let (now, is_right) = (api.app.clock.now(), signed_in.is_ok());
        api.throttle.settle(target, address, now, is_right).map_err(refused)?;
    }
    Ok(signed_in?)
}

/// Records a sign-in. Without the record, the token is not returned.
async fn record_sign_in(
    api: &Api,
    detail: &TokenDetail,
    address: Option<IpAddr>,
) -> Result<(), AppError> {
    let Some(request) = request::current() else { return Ok(()) };
    let call = NewAuditRecord {
        request,
        project: detail.grant.as_ref().map(|grant| grant.project.id.clone()),
        access_key: None,
        user: Some(detail.user.name.to_string()),
        address,
        operation: "POST /v3/auth/tokens".to_owned(),
        resource: "/v3/auth/tokens".to_owned(),
        at: api.app.clock.now(),
    };
    api.app.begin_audit(&call).await?;
    api.app.end_audit(&call.request, StatusCode::CREATED.as_u16(), None).await
}

/// A locked user gets the same answer as a wrong password.
fn refused(reason: Throttled) -> Error {
    match reason {
        Throttled::Locked => Error::Unauthorized,
        Throttled::Address { .. } => throttled(reason).into(),
    }
}

/// The user that a sign-in request names.
struct NamedUser {
    /// The user whose attempts are counted, independent of naming by id or by name.
    target: Target,
    claimed: Claimed,
}

impl IdentityBody {
    /// The user who signs in with a password; `None` when no such user can exist.
    async fn named(&self, api: &Api) -> Result<Option<NamedUser>, AppError> {
        let Some(PasswordMethod { user }) = &self.password else { return Ok(None) };
        // A name that no user can have always fails.
        let Some(key) = user.key() else { return Ok(None) };
        let found = api.app.find_named(&key).await?;
        let target = match (&found, key) {
            (Some(user), _) => Target::User(user.id.clone()),
            (None, UserKey::Id(id)) => Target::NoUser(id.to_string()),
            (None, UserKey::Name(name)) => Target::NoUser(name.to_string()),
        };
        Ok(Some(NamedUser { target, claimed: found.map_or(Claimed::Nobody, Claimed::User) }))
    }

    async fn proof(self, api: &Api) -> Result<Proof, Error> {
        match (&self.methods[..], self.password, self.token) {
            ([method], Some(PasswordMethod { user }), _) if method == "password" => {
                Ok(user.proof(api.app.password_turn().await?))
            }
            ([method], _, Some(TokenMethod { id })) if method == "token" => Ok(Proof::Token(id)),
            _ => {
                let reason = "expected one of the methods `password` and `token`";
                Err(Error::BadRequest(reason.to_owned()))
            }
        }
    }
}

impl UserBody {
    /// The user that the body names; `None` when no such user can exist.
    fn key(&self) -> Option<UserKey> {
        match (&self.id, &self.name) {
            (Some(id), _) => id.parse().ok().map(UserKey::Id),
            (None, Some(name)) if self.domain.as_ref().is_none_or(Named::is_our_domain) => {
                name.parse().ok().map(UserKey::Name)
            }
            (None, _) => None,
        }
    }

    fn proof(self, turn: PasswordTurn) -> Proof {
        Proof::Password { user: self.key(), password: self.password, turn }
    }
}

/// The requested scope; `None` when no such scope can exist.
fn wanted(scope: Option<Scope>) -> Option<WantedScope> {
    match scope {
        None | Some(Scope::Unscoped { .. }) => Some(WantedScope::Unscoped),
        Some(Scope::Word(word)) => (word == "unscoped").then_some(WantedScope::Unscoped),
        Some(Scope::Domain { domain }) => domain.is_our_domain().then_some(WantedScope::Domain),
        Some(Scope::Project { project: ScopedProject { id: Some(id), .. } }) => {
            id.parse().ok().map(|id| WantedScope::Project(ProjectKey::Id(id)))
        }
        Some(Scope::Project { project: ScopedProject { name, domain, .. } }) => {
            let is_ours = domain.is_none_or(|domain| domain.is_our_domain());
            let name = name.filter(|_| is_ours)?;
            Some(WantedScope::Project(ProjectKey::Name(name)))
        }
    }
}

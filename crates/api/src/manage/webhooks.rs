//! `/api/v1/webhooks`: delivery of the project's events to URLs.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use bytes::Bytes;
use cachevault_app::{AppError, CreateWebhook};
use cachevault_domain::{EventKind, Webhook, WebhookChange, WebhookId};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{self, field};
use super::error::Error;
use super::parameters::WebhookPath;
use super::path::PathId;
use crate::Api;
use crate::auth::Identity;

/// A webhook to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateWebhookBody {
    /// An `https://` URL without user, password and fragment.
    #[schema(example = "https://hooks.example.org/cachevault", max_length = 2048)]
    url: String,
    /// The kinds of events to deliver, as in `ListEvents`.
    #[schema(example = json!(["backup_failed", "window_missed", "backup_expired"]), min_items = 1, max_items = 64)]
    kinds: Option<Vec<String>>,
    #[schema(default = true)]
    enabled: Option<bool>,
}

/// Changes to a webhook. Omitted fields stay unchanged.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeWebhookBody {
    #[schema(max_length = 2048)]
    url: Option<String>,
    #[schema(min_items = 1, max_items = 64)]
    kinds: Option<Vec<String>>,
    /// A webhook that is enabled again receives only new events.
    enabled: Option<bool>,
}

/// A webhook without its secret.
#[derive(Serialize, ToSchema)]
pub(super) struct WebhookBody {
    id: String,
    url: String,
    kinds: Vec<&'static str>,
    enabled: bool,
    created_at: String,
    /// Consecutive failed deliveries.
    failures: u32,
    /// Events whose delivery was abandoned after the configured time.
    given_up: u64,
    /// The error of the last failed delivery.
    last_error: Option<String>,
    last_error_at: Option<String>,
    /// The time of the last delivered event.
    delivered_at: Option<String>,
}

/// A webhook with its secret, which is shown only once.
#[derive(Serialize, ToSchema)]
pub(super) struct ShownWebhookBody {
    #[serde(flatten)]
    webhook: WebhookBody,
    /// The secret that signs the messages.
    #[schema(example = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")]
    secret: String,
}

/// The webhooks of a project.
#[derive(Serialize, ToSchema)]
pub(super) struct WebhooksBody {
    items: Vec<WebhookBody>,
}

/// The result of a test delivery.
#[derive(Serialize, ToSchema)]
pub(super) struct WebhookTestBody {
    delivered: bool,
    /// The reason of a failure.
    error: Option<String>,
}

impl From<&Webhook> for WebhookBody {
    fn from(webhook: &Webhook) -> Self {
        let last_error = webhook.last_error.as_ref();
        Self {
            id: webhook.id.to_string(),
            url: webhook.url.clone(),
            kinds: webhook.kinds.iter().map(|kind| kind.as_str()).collect(),
            enabled: webhook.enabled,
            created_at: webhook.created_at.to_string(),
            failures: webhook.failures,
            given_up: webhook.given_up,
            last_error: last_error.map(|(_, reason)| reason.clone()),
            last_error_at: last_error.map(|(at, _)| at.to_string()),
            delivered_at: webhook.delivered_at.map(|at| at.to_string()),
        }
    }
}

/// List the webhooks of the project, oldest first
#[utoipa::path(get, path = "/webhooks", operation_id = "ListWebhooks", tag = "Events",
    responses((status = 200, body = WebhooksBody)))]
pub(super) async fn list(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
) -> Result<Json<WebhooksBody>, Error> {
    let found = api.app.list_webhooks(&identity.caller).await?;
    Ok(Json(WebhooksBody { items: found.iter().map(WebhookBody::from).collect() }))
}

/// Create a webhook; the answer contains its secret once
#[utoipa::path(post, path = "/webhooks", operation_id = "CreateWebhook", tag = "Events",
    request_body = CreateWebhookBody,
    responses((status = 201, body = ShownWebhookBody)))]
pub(super) async fn create(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    body: Bytes,
) -> Result<(StatusCode, Json<ShownWebhookBody>), Error> {
    let body: CreateWebhookBody = body::parse(&body)?;
    let wish = CreateWebhook {
        url: body.url,
        kinds: body.kinds.as_deref().map(kinds).transpose()?,
        enabled: body.enabled.unwrap_or(true),
    };
    let shown = api.app.create_webhook(&identity.caller, wish).await?;
    let secret = shown.secret.expose_secret().to_owned();
    let body = ShownWebhookBody { webhook: WebhookBody::from(&shown.webhook), secret };
    Ok((StatusCode::CREATED, Json(body)))
}

/// Show a webhook, without its secret
#[utoipa::path(get, path = "/webhooks/{webhook_id}", operation_id = "ShowWebhook", tag = "Events",
    params(WebhookPath),
    responses((status = 200, body = WebhookBody)))]
pub(super) async fn show(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(webhook): PathId,
) -> Result<Json<WebhookBody>, Error> {
    let found = api.app.get_webhook(&identity.caller, parse(&webhook)?).await?;
    Ok(Json(WebhookBody::from(&found)))
}

/// Change a webhook
#[utoipa::path(patch, path = "/webhooks/{webhook_id}", operation_id = "ChangeWebhook", tag = "Events",
    params(WebhookPath),
    request_body = ChangeWebhookBody,
    responses((status = 200, body = WebhookBody)))]
pub(super) async fn change(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(webhook): PathId,
    body: Bytes,
) -> Result<Json<WebhookBody>, Error> {
    let ChangeWebhookBody { url, kinds: wanted, enabled } = body::parse(&body)?;
    let kinds = wanted.as_deref().map(kinds).transpose()?;
    let change = WebhookChange { url, kinds, enabled };
    let changed = api.app.change_webhook(&identity.caller, parse(&webhook)?, change).await?;
    Ok(Json(WebhookBody::from(&changed)))
}

/// Delete a webhook
#[utoipa::path(delete, path = "/webhooks/{webhook_id}", operation_id = "RemoveWebhook", tag = "Events",
    params(WebhookPath),
    responses((status = 204, description = "The webhook is deleted")))]
pub(super) async fn remove(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(webhook): PathId,
) -> Result<StatusCode, Error> {
    api.app.remove_webhook(&identity.caller, parse(&webhook)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deliver a test message to a webhook
#[utoipa::path(post, path = "/webhooks/{webhook_id}/test", operation_id = "TestWebhook", tag = "Events",
    params(WebhookPath),
    responses((status = 200, body = WebhookTestBody)))]
pub(super) async fn test(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(webhook): PathId,
) -> Result<Json<WebhookTestBody>, Error> {
    let sent = api.app.test_webhook(&identity.caller, parse(&webhook)?).await?;
    let error = sent.err().map(|error| error.to_string());
    Ok(Json(WebhookTestBody { delivered: error.is_none(), error }))
}

fn parse(webhook: &str) -> Result<WebhookId, Error> {
    webhook.parse().map_err(|_| Error::App(AppError::WebhookNotFound))
}

fn kinds(words: &[String]) -> Result<Vec<EventKind>, Error> {
    words.iter().map(|word| field("kinds", word)).collect()
}

//! URLs that are told what happens, by messages signed as <https://www.standardwebhooks.com> says.
//!
//! A message is a `POST` of `{"type", "timestamp", "data"}`. Its header `webhook-id` is the same
//! however often it is sent; `webhook-signature` is `v1,` and, in Base64, the HMAC-SHA256 of
//! `<webhook-id>.<webhook-timestamp>.<body>` with the bytes that the secret holds behind `whsec_`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cachevault_domain::{
    Action, Caller, Delivery, Event, EventKind, HostRules, RequestId, SealedSecret, Webhook,
    WebhookChange, WebhookId,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use url::{Host, Url};

use crate::sealer::keyed_hash;
use crate::{App, AppError};

/// Tests of webhooks that run at a time; a [`WebhookSender`] has places for them beside those for events.
pub const WEBHOOK_TESTS_MAX: usize = 4;
/// The longest URL of a webhook, bytes.
const URL_BYTES_MAX: usize = 2048;
const SECRET_BYTES: usize = 32;
const SECRET_PREFIX: &str = "whsec_";

/// A message on its way to a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookMessage {
    /// Where it goes.
    pub url: String,
    /// The header `webhook-id`.
    pub id: String,
    /// The header `webhook-timestamp`: seconds since 1970.
    pub timestamp: String,
    /// The header `webhook-signature`.
    pub signature: String,
    /// The body, JSON.
    pub body: String,
}

/// A message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotDelivered {
    /// Why not, for an operator: nothing of what the receiver has answered but its status.
    pub reason: String,
    /// Whether the receiver wants no more messages at all.
    pub is_unwanted: bool,
}

impl NotDelivered {
    /// For this reason; another message may be taken.
    pub fn because(reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string(), is_unwanted: false }
    }
}

/// Sends messages. It follows no redirection, takes a bounded time, and goes to no address to which
/// the [`WebhookRules`] let nothing go.
#[async_trait]
pub trait WebhookSender: Send + Sync + fmt::Debug {
    /// Sends one message once.
    async fn send(&self, message: &WebhookMessage) -> Result<(), NotDelivered>;
}

/// What the URL of a webhook may be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebhookRules {
    /// Whether messages may go without TLS.
    pub plain_http: bool,
    /// To which addresses messages may go.
    pub hosts: HostRules,
}

/// How webhooks are told.
#[derive(Debug, Clone)]
pub struct Webhooks {
    sender: Arc<dyn WebhookSender>,
    rules: WebhookRules,
    /// Places for tests, of which anybody may ask for many: what is told of events does not wait
    /// for them.
    tests: Arc<Semaphore>,
}

impl Webhooks {
    /// Messages that `sender` sends, to where `rules` let them go.
    pub fn new(sender: Arc<dyn WebhookSender>, rules: WebhookRules) -> Self {
        Self { sender, rules, tests: Arc::new(Semaphore::new(WEBHOOK_TESTS_MAX)) }
    }
}

/// The URL of a webhook is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWebhook {
    /// Write all of it.
    #[error("the URL of a webhook begins with https:// and a host; this one cannot be read")]
    NotAUrl,
    /// Take TLS, or allow `webhook_http`.
    #[error("the URL of a webhook begins with https://; `webhook_http` would allow http://")]
    Scheme,
    /// A message proves by its signature who sends it.
    #[error("the URL of a webhook holds no user, no password and no fragment")]
    Credentials,
    /// Shorten it.
    #[error("the URL of a webhook has {URL_BYTES_MAX} bytes at the most")]
    TooLong,
    /// Name another host, or allow `webhook_local`.
    #[error(
        "the URL of a webhook has a loopback or link-local address; `webhook_local` would allow that"
    )]
    Local,
    /// Name one kind of event at least.
    #[error("a webhook is told of one kind of event at least")]
    NoKinds,
}

impl WebhookRules {
    /// The URL as it is used, where it is allowed.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it.
    pub fn check(&self, text: &str) -> Result<String, InvalidWebhook> {
        if text.len() > URL_BYTES_MAX {
            return Err(InvalidWebhook::TooLong);
        }
        let url = Url::parse(text).map_err(|_| InvalidWebhook::NotAUrl)?;
        match url.scheme() {
            "https" => {}
            "http" if self.plain_http => {}
            _ => return Err(InvalidWebhook::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(InvalidWebhook::Credentials);
        }
        let this_machine = IpAddr::from(Ipv4Addr::LOCALHOST);
        let leads_to = match url.host() {
            None => return Err(InvalidWebhook::NotAUrl),
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            // What other names lead here is found out when they are looked up.
            Some(Host::Domain(name)) => {
                let name = name.trim_end_matches('.');
                let is_local = name == "localhost" || name.ends_with(".localhost");
                is_local.then_some(this_machine)
            }
        };
        if leads_to.is_some_and(|address| !self.hosts.allow(address)) {
            return Err(InvalidWebhook::Local);
        }
        // A name in other letters may have become longer.
        let text = url.to_string();
        if text.len() > URL_BYTES_MAX { Err(InvalidWebhook::TooLong) } else { Ok(text) }
    }
}

/// A webhook to create.
#[derive(Debug, Clone)]
pub struct CreateWebhook {
    /// Where messages go.
    pub url: String,
    /// What it is told of; [`Webhook::KINDS_DEFAULT`] where nothing is said.
    pub kinds: Option<Vec<EventKind>>,
    /// Whether it is told anything.
    pub enabled: bool,
}

/// A webhook with its secret in clear: shown once.
#[derive(Debug)]
pub struct ShownWebhook {
    /// All but its secret.
    pub webhook: Webhook,
    /// What it signs with: `whsec_` and Base64.
    pub secret: SecretString,
}

impl App {
    /// Creates a webhook; its secret is never told again.
    ///
    /// # Errors
    /// [`AppError::InvalidWebhook`], [`AppError::TooManyWebhooks`], [`AppError::CatalogFailed`].
    pub async fn create_webhook(
        &self,
        caller: &Caller,
        wish: CreateWebhook,
    ) -> Result<ShownWebhook, AppError> {
        let project = caller.may(Action::CreateWebhook)?;
        let kinds = wish.kinds.map_or_else(|| Ok(Webhook::KINDS_DEFAULT.to_vec()), each_once)?;
        let webhook = Webhook {
            id: WebhookId::mint(&*self.entropy),
            project: project.clone(),
            url: self.webhooks.rules.check(&wish.url)?,
            kinds,
            enabled: wish.enabled,
            created_at: self.clock.now(),
            failures: 0,
            given_up: 0,
            last_error: None,
            delivered_at: None,
        };
        let mut bytes = zeroize::Zeroizing::new([0; SECRET_BYTES]);
        self.entropy.fill(&mut *bytes);
        let secret = SecretString::from(format!("{SECRET_PREFIX}{}", STANDARD.encode(*bytes)));
        let sealed = self.sealer.seal(&owner(webhook.id), &secret);
        self.catalog.add_webhook(&webhook, &sealed).await?;
        Ok(ShownWebhook { webhook, secret })
    }

    /// The webhooks of the project, oldest first.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn list_webhooks(&self, caller: &Caller) -> Result<Vec<Webhook>, AppError> {
        Ok(self.catalog.list_webhooks(caller.may(Action::ListWebhooks)?).await?)
    }

    /// One webhook.
    ///
    /// # Errors
    /// [`AppError::WebhookNotFound`], [`AppError::CatalogFailed`].
    pub async fn get_webhook(&self, caller: &Caller, id: WebhookId) -> Result<Webhook, AppError> {
        let project = caller.may(Action::ListWebhooks)?;
        let found = self.catalog.find_webhook(project, id).await?;
        found.map(|(webhook, _)| webhook).ok_or(AppError::WebhookNotFound)
    }

    /// Changes a webhook.
    ///
    /// # Errors
    /// [`AppError::WebhookNotFound`], [`AppError::InvalidWebhook`], [`AppError::CatalogFailed`].
    pub async fn change_webhook(
        &self,
        caller: &Caller,
        id: WebhookId,
        change: WebhookChange,
    ) -> Result<Webhook, AppError> {
        let project = caller.may(Action::ModifyWebhook)?;
        let change = WebhookChange {
            url: change.url.map(|url| self.webhooks.rules.check(&url)).transpose()?,
            kinds: change.kinds.map(each_once).transpose()?,
            enabled: change.enabled,
        };
        self.catalog.change_webhook(project, id, &change).await?;
        self.get_webhook(&caller.for_answer(), id).await
    }

    /// Removes a webhook.
    ///
    /// # Errors
    /// [`AppError::WebhookNotFound`], [`AppError::CatalogFailed`].
    pub async fn remove_webhook(&self, caller: &Caller, id: WebhookId) -> Result<(), AppError> {
        let project = caller.may(Action::DeleteWebhook)?;
        Ok(self.catalog.remove_webhook(project, id).await?)
    }

    /// Sends a message that tells of nothing, once; whether it was taken. A disabled webhook gets it,
    /// too.
    ///
    /// # Errors
    /// [`AppError::WebhookNotFound`], [`AppError::SecretUnreadable`], [`AppError::CatalogFailed`].
    pub async fn test_webhook(
        &self,
        caller: &Caller,
        id: WebhookId,
    ) -> Result<Result<(), NotDelivered>, AppError> {
        let project = caller.may(Action::TestWebhook)?;
        let found = self.catalog.find_webhook(project, id).await?;
        let (webhook, secret) = found.ok_or(AppError::WebhookNotFound)?;
        let message_id = format!("test_{}", RequestId::mint(&*self.entropy));
        let body = json!({
            "type": "webhook_test",
            "timestamp": self.clock.now().to_string(),
            "data": {"webhook_id": id.to_string(), "project_id": project.to_string()},
        });
        let message = self.sign_message(&webhook, &secret, message_id, &body)?;
        let Ok(_place) = self.webhooks.tests.try_acquire() else {
            let reason = "too many tests run at this moment; try again".to_owned();
            return Ok(Err(NotDelivered { reason, is_unwanted: false }));
        };
        Ok(self.webhooks.sender.send(&message).await)
    }

    /// Tells a webhook of one event.
    ///
    /// # Errors
    /// Why it was not taken.
    pub async fn deliver(&self, delivery: &Delivery) -> Result<(), NotDelivered> {
        let Delivery { webhook, secret, event, .. } = delivery;
        // A catalog that was lost and made anew counts events from the beginning, but has no webhook
        // of before.
        let message_id = format!("evt_{}_{}", webhook.id, event.id);
        let body = told(event);
        let message = self.sign_message(webhook, secret, message_id, &body);
        let message = message.map_err(NotDelivered::because)?;
        self.webhooks.sender.send(&message).await
    }

    fn sign_message(
        &self,
        webhook: &Webhook,
        secret: &SealedSecret,
        id: String,
        body: &Value,
    ) -> Result<WebhookMessage, AppError> {
        let secret = self.sealer.open(&owner(webhook.id), secret)?;
        let timestamp = self.clock.now().as_second().to_string();
        let body = body.to_string();
        let signature = signature(&secret, &format!("{id}.{timestamp}.{body}"));
        let signature = signature.ok_or(crate::Unsealable)?;
        Ok(WebhookMessage { url: webhook.url.clone(), id, timestamp, signature, body })
    }
}

/// `v1,` and the Base64 of the keyed hash; `None` where the secret is none of ours.
fn signature(secret: &SecretString, signed: &str) -> Option<String> {
    let text = secret.expose_secret().strip_prefix(SECRET_PREFIX)?;
    let key = zeroize::Zeroizing::new(STANDARD.decode(text).ok()?);
    let key: &[u8; SECRET_BYTES] = key.as_slice().try_into().ok()?;
    Some(format!("v1,{}", STANDARD.encode(keyed_hash(key, signed.as_bytes()))))
}

/// An event as a message tells it.
fn told(event: &Event) -> Value {
    json!({
        "type": event.kind.as_str(),
        "timestamp": event.at.to_string(),
        "data": {
            "id": event.id.get(),
            "project_id": event.project.to_string(),
            "instance_id": event.instance.map(|id| id.to_string()),
            "instance_name": event.instance_name.as_ref().map(ToString::to_string),
            "backup_id": event.backup.map(|id| id.to_string()),
            "restore_id": event.restore.map(|id| id.to_string()),
            "detail": event.detail,
        },
    })
}

fn each_once(kinds: Vec<EventKind>) -> Result<Vec<EventKind>, InvalidWebhook> {
    let wanted = EventKind::ALL.iter().copied().filter(|kind| kinds.contains(kind));
    let wanted: Vec<_> = wanted.collect();
    if wanted.is_empty() { Err(InvalidWebhook::NoKinds) } else { Ok(wanted) }
}

fn owner(id: WebhookId) -> String {
    format!("webhook/{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_of_the_published_scheme() {
        // Computed with Python:
        // base64.b64encode(hmac.new(bytes(range(32)), b"evt_1.1614265330.{}", "sha256").digest())
        let secret = format!(
            "{SECRET_PREFIX}{}",
            STANDARD.encode(std::array::from_fn::<u8, 32, _>(|n| n as u8))
        );
        let signed = signature(&secret.into(), "evt_1.1614265330.{}").unwrap();
        assert_eq!(signed, "v1,gai81MdYAX+7fsgySuIN/pPT2lu6fsmGslZepSNrnM0=");
        assert_eq!(signature(&"whsec_c2hvcnQ=".to_owned().into(), ""), None);
    }

    #[test]
    fn a_url_leads_where_it_may_and_holds_no_secret() {
        let (strict, open) = (
            WebhookRules::default(),
            WebhookRules { plain_http: true, hosts: HostRules::anywhere() },
        );
        for good in
            ["https://hooks.example.org/a?b=c", "https://10.0.0.9:8443/", "https://[2001:db8::1]/"]
        {
            assert_eq!(strict.check(good).unwrap(), good);
        }
        for (bad, why) in [
            ("", InvalidWebhook::NotAUrl),
            ("hooks.example.org", InvalidWebhook::NotAUrl),
            ("http://hooks.example.org", InvalidWebhook::Scheme),
            ("file:///etc/passwd", InvalidWebhook::Scheme),
            ("https://user@hooks.example.org", InvalidWebhook::Credentials),
            ("https://:topsecret@hooks.example.org", InvalidWebhook::Credentials),
            ("https://hooks.example.org/#part", InvalidWebhook::Credentials),
            ("https://127.0.0.1/", InvalidWebhook::Local),
            ("https://0x7f000001/", InvalidWebhook::Local),
            ("https://2130706433/", InvalidWebhook::Local),
            ("https://[::ffff:169.254.169.254]/", InvalidWebhook::Local),
            ("https://[::127.0.0.1]/", InvalidWebhook::Local),
            ("https://[64:ff9b::169.254.169.254]/", InvalidWebhook::Local),
            ("https://[2002:7f00:1::]/", InvalidWebhook::Local),
            ("https://localhost/", InvalidWebhook::Local),
            ("https://a.LOCALHOST./", InvalidWebhook::Local),
            (&format!("https://x/{}", "a".repeat(2048)), InvalidWebhook::TooLong),
        ] {
            assert_eq!(strict.check(bad), Err(why), "{bad}");
            assert!(!why.to_string().contains("topsecret"));
        }
        for good in ["http://127.0.0.1:1/", "http://localhost/a", "https://[::1]/"] {
            assert_eq!(open.check(good).unwrap(), good);
        }
    }
}

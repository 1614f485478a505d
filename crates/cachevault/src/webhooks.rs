//! Sends messages to webhooks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cachevault_app::{
    NotDelivered, WEBHOOK_TESTS_MAX, WebhookMessage, WebhookRules, WebhookSender,
};
use cachevault_domain::HostRules;
use tokio::sync::Semaphore;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

/// All of a message: name, connection, TLS, and the first line and headers of the answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Each message holds a thread while it is on its way: as many as are claimed at a time, so that none
/// waits while its lease runs, and those of tests.
const SENDING_MAX: usize = cachevault_jobs::MESSAGES_MAX + WEBHOOK_TESTS_MAX;
const GONE: u16 = 410;

/// Sends messages by HTTP.
#[derive(Debug)]
pub(crate) struct HttpSender {
    agent: ureq::Agent,
    slots: Arc<Semaphore>,
}

/// Finds only addresses to which messages may go: a name may lead anywhere, and elsewhere than it did
/// when the webhook was created.
#[derive(Debug)]
struct Guard {
    resolver: DefaultResolver,
    hosts: HostRules,
}

const LEADS_HERE: &str =
    "the host has a loopback or link-local address; `webhook_local` would allow that";

impl Resolver for Guard {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.resolver.resolve(uri, config, timeout)?;
        let mut allowed = self.empty();
        for address in found.iter().filter(|address: &&SocketAddr| self.hosts.allow(address.ip())) {
            allowed.push(*address);
        }
        if allowed.is_empty() { Err(ureq::Error::Other(LEADS_HERE.into())) } else { Ok(allowed) }
    }
}

impl HttpSender {
    /// A sender to where these rules let messages go, which knows receivers by these certificates.
    pub(crate) fn new(rules: WebhookRules, trusted: RootCerts) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            // A message goes where it was said, and nowhere else.
            .max_redirects(0)
            .max_redirects_will_error(false)
            // A proxy would look names up itself, and reach what it likes.
            .proxy(None)
            .user_agent("cachevault")
            .tls_config(TlsConfig::builder().root_certs(trusted).build())
            .build();
        let guard = Guard { resolver: DefaultResolver::default(), hosts: rules.hosts };
        let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), guard);
        Self { agent, slots: Arc::new(Semaphore::new(SENDING_MAX)) }
    }
}

#[async_trait]
impl WebhookSender for HttpSender {
    async fn send(&self, message: &WebhookMessage) -> Result<(), NotDelivered> {
        let slot = self.slots.clone().acquire_owned().await.map_err(NotDelivered::because)?;
        let (agent, message) = (self.agent.clone(), message.clone());
        let sent = tokio::task::spawn_blocking(move || {
            // Held by the message and not by who waits for it.
            let _slot = slot;
            post(&agent, &message)
        });
        sent.await.map_err(NotDelivered::because)?
    }
}

fn post(agent: &ureq::Agent, message: &WebhookMessage) -> Result<(), NotDelivered> {
    let sent = agent
        .post(&message.url)
        .header("content-type", "application/json")
        .header("webhook-id", &message.id)
        .header("webhook-timestamp", &message.timestamp)
        .header("webhook-signature", &message.signature)
        .send(&message.body);
    // Its body is not read: what the receiver says there is nobody's business.
    let status = sent.map_err(NotDelivered::because)?.status();
    if status.is_success() {
        return Ok(());
    }
    let reason = format!("the receiver answered {status}");
    Err(NotDelivered { reason, is_unwanted: status.as_u16() == GONE })
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpListener;

    use super::*;

    fn message(url: String) -> WebhookMessage {
        let text = || "x".to_owned();
        WebhookMessage { url, id: text(), timestamp: text(), signature: text(), body: text() }
    }

    #[test]
    fn a_name_that_leads_here_is_found_out_when_it_is_looked_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
        let sender = HttpSender::new(WebhookRules::default(), RootCerts::WebPki);
        let refused = post(&sender.agent, &message(url)).unwrap_err();
        assert!(refused.reason.contains("webhook_local"), "{refused}");
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

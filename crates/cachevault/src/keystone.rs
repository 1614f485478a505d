//! Asks another Keystone what its tokens stand for.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use async_trait::async_trait;
use cachevault_app::{ForeignToken, TokenAuthority};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Semaphore;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

const TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Each question holds a thread while it waits.
const QUESTIONS_AT_A_TIME: usize = 8;

/// Another Keystone, by its URL.
#[derive(Debug)]
pub(crate) struct Keystone {
    agent: ureq::Agent,
    url: String,
    slots: Arc<Semaphore>,
}

#[derive(Deserialize)]
struct Answer {
    token: Token,
}

#[derive(Deserialize)]
struct Token {
    expires_at: jiff::Timestamp,
    user: Named,
    project: Option<Named>,
    #[serde(default)]
    roles: Vec<Role>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Role {
    name: String,
}

impl Keystone {
    /// The Keystone at `url`, which ends with `/v3`, known by these certificates or by those that
    /// everyone trusts.
    pub(crate) fn new(url: &str, ca_pem: Option<&str>) -> anyhow::Result<Self> {
        let mut tls = TlsConfig::builder();
        if let Some(pem) = ca_pem {
            tls = tls.root_certs(trusted("keystone_ca_file", pem)?);
        }
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            // A token is sent where it was said, and nowhere else.
            .max_redirects(0)
            .tls_config(tls.build());
        Ok(Self {
            agent: config.build().into(),
            url: format!("{}/auth/tokens?nocatalog", url.trim_end_matches('/')),
            slots: Arc::new(Semaphore::new(QUESTIONS_AT_A_TIME)),
        })
    }
}

/// The certificates of the file that this setting names.
pub(crate) fn trusted(setting: &str, pem: &str) -> anyhow::Result<RootCerts> {
    let items = parse_pem(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let items = items.with_context(|| format!("read the certificates of `{setting}`"))?;
    let certificates: Vec<_> = items
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    ensure!(!certificates.is_empty(), "`{setting}` holds no certificate");
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

#[async_trait]
impl TokenAuthority for Keystone {
    async fn validate(&self, token: &SecretString) -> Result<Option<ForeignToken>, String> {
        let slot = self.slots.clone().acquire_owned().await.map_err(|e| e.to_string())?;
        let (agent, url, token) = (self.agent.clone(), self.url.clone(), token.clone());
        let asked = tokio::task::spawn_blocking(move || {
            // Held by the question and not by who waits for it.
            let _slot = slot;
            ask(&agent, &url, &token)
        });
        asked.await.map_err(|e| e.to_string())?
    }
}

fn ask(
    agent: &ureq::Agent,
    url: &str,
    token: &SecretString,
) -> Result<Option<ForeignToken>, String> {
    let token = token.expose_secret();
    let request = agent.get(url).header("x-auth-token", token).header("x-subject-token", token);
    let mut response = request.call().map_err(|e| format!("`{url}`: {e}"))?;
    match response.status().as_u16() {
        200 => {}
        // Who asks with a token that is none is told so in one of these ways.
        401 | 403 | 404 => return Ok(None),
        other => return Err(format!("`{url}` answered {other}")),
    }
    let mut text = String::new();
    let read = response.body_mut().as_reader().take(ANSWER_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|e| format!("`{url}`: {e}"))?;
    parse(&text).map(Some).map_err(|e| format!("`{url}` answered something else than a token: {e}"))
}

fn parse(text: &str) -> Result<ForeignToken, serde_json::Error> {
    let Answer { token } = serde_json::from_str(text)?;
    Ok(ForeignToken {
        user_id: token.user.id,
        user_name: token.user.name,
        project: token.project.map(|project| (project.id, project.name)),
        roles: token.roles.into_iter().map(|role| role.name).collect(),
        expires_at: token.expires_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_form_of_a_token_is_read() {
        let text = r#"{"token": {
            "audit_ids": ["3T2dc1CGQxyJsHdDu1xkcw"], "is_domain": false, "methods": ["password"],
            "expires_at": "2015-11-07T02:58:43.578887Z", "issued_at": "2015-11-07T01:58:43.578929Z",
            "project": {"domain": {"id": "default", "name": "Default"},
                "id": "8538a3f13f9541b28c2620eb19065e45", "name": "admin"},
            "roles": [{"id": "51cc68287d524c759f47c811e6463340", "name": "admin"}],
            "user": {"domain": {"id": "default", "name": "Default"},
                "id": "3ec3164f750146be97f21559ee4d9c51", "name": "admin",
                "password_expires_at": "2016-11-06T15:32:17.000000"}}}"#;
        let token = parse(text).unwrap();
        assert_eq!(token.project.unwrap().0, "8538a3f13f9541b28c2620eb19065e45");
        assert_eq!((token.roles, token.user_name), (vec!["admin".to_owned()], "admin".to_owned()));
        assert_eq!(token.expires_at.to_string(), "2015-11-07T02:58:43.578887Z");
        assert!(parse(r#"{"versions": []}"#).is_err());
    }

    #[test]
    fn certificates_that_are_none_are_refused() {
        assert!(Keystone::new("https://keystone/v3", Some("nothing")).is_err());
        assert!(Keystone::new("https://keystone/v3", None).is_ok());
    }
}

//! Parts of Keystone's response bodies.

use axum::http::{HeaderName, HeaderValue};
use axum::response::AppendHeaders;
use cachevault_app::TokenDetail;
use cachevault_domain::{Grant, Project, SignIn, TokenScope};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::catalog::services;
use super::{DOMAIN_ID, DOMAIN_NAME};
use crate::Api;

/// The response header that contains the token.
pub(super) fn subject_token(text: &str) -> AppendHeaders<Option<(HeaderName, HeaderValue)>> {
    let value = HeaderValue::from_str(text).ok().map(|mut value| {
        value.set_sensitive(true);
        (HeaderName::from_static("x-subject-token"), value)
    });
    AppendHeaders(value)
}

/// The description of a token. `catalog_base` adds the service catalog.
pub(super) fn token_body(api: &Api, detail: &TokenDetail, catalog_base: Option<&str>) -> Value {
    let TokenDetail { token, user, grant } = detail;
    let methods: &[&str] = match token.sign_in {
        SignIn::Password => &["password"],
        SignIn::Token => &["token", "password"],
    };
    let mut body = json!({
        "methods": methods,
        "user": {
            "id": user.id.as_str(),
            "name": user.name.as_str(),
            "domain": domain(),
            "password_expires_at": null,
        },
        "issued_at": moment(token.issued_at),
        "expires_at": moment(token.expires_at),
    });
    if let Some(Grant { project, role, .. }) = grant {
        let (id, name) = (project.id.as_str(), project.name.as_str());
        body["project"] = json!({"id": id, "name": name, "domain": domain()});
        body["is_domain"] = json!(false);
        let role_id = stable_id(&["role", role.as_str()]);
        body["roles"] = json!([{"id": role_id, "name": role.as_str()}]);
    }
    if token.scope == TokenScope::Domain {
        body["domain"] = domain();
        body["roles"] = json!([]);
    }
    if let Some(base) = catalog_base.filter(|_| token.scope != TokenScope::Unscoped) {
        let project = grant.as_ref().map(|grant| &grant.project.id);
        body["catalog"] = json!(services(&api.region, base, project));
    }
    json!({"token": body})
}

pub(super) fn project_body(project: &Project, base: &str) -> Value {
    let id = project.id.as_str();
    json!({
        "id": id,
        "name": project.name.as_str(),
        "description": "",
        "domain_id": DOMAIN_ID,
        "parent_id": DOMAIN_ID,
        "is_domain": false,
        "enabled": project.enabled,
        "links": {"self": format!("{base}/v3/projects/{id}")},
    })
}

fn domain() -> Value {
    json!({"id": DOMAIN_ID, "name": DOMAIN_NAME})
}

/// A stable id of 32 hexadecimal digits, derived from the parts.
pub(super) fn stable_id(parts: &[&str]) -> String {
    hex::encode(&Sha256::digest(parts.join("/"))[..16])
}

fn moment(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

//! Writes and parses the URLs of download links. Each link has exactly one spelling.

use axum::http::{HeaderMap, Uri, header};
use cachevault_app::{FileLink, Ticket};

use crate::Api;

/// The absolute URL of a link, for a client that sent these headers.
pub(crate) fn url(api: &Api, headers: &HeaderMap, link: &FileLink) -> String {
    format!("{}{}", base(api, headers), path(&link.ticket, &link.signature))
}

/// The base URL of the service: the configured one, otherwise the request's host, otherwise the
/// listen address.
pub(crate) fn base(api: &Api, headers: &HeaderMap) -> String {
    if let Some(url) = &api.public_url {
        return url.clone();
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_plain = |host: &&str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        !host.is_empty() && host.len() <= 255 && host.bytes().all(allowed)
    };
    match host.filter(is_plain) {
        Some(host) => format!("{}://{host}", api.scheme),
        None => format!("{}://{}", api.scheme, api.address),
    }
}

fn path(ticket: &Ticket, signature: &str) -> String {
    let Ticket { project, backup, shard, file_name, expires_at } = ticket;
    format!(
        "/download/{project}/{backup}/{shard}/{file_name}?Expires={expires_at}&Signature={signature}"
    )
}

/// Parses the path and query of a link. Only the exact text that [`url`] writes is valid: other
/// spellings and extra parameters are refused.
pub(super) fn parse(uri: &Uri) -> Option<(Ticket, String)> {
    let mut parts = uri.path().strip_prefix("/download/")?.split('/');
    let mut next = || parts.next();
    let (project, backup, shard, file_name) = (next()?, next()?, next()?, next()?);
    let (expires_at, signature) =
        uri.query()?.strip_prefix("Expires=")?.split_once("&Signature=")?;
    let ticket = Ticket {
        project: project.parse().ok()?,
        backup: backup.parse().ok()?,
        shard: shard.parse().ok()?,
        file_name: file_name.to_owned(),
        expires_at: expires_at.parse().ok()?,
    };
    let is_the_same = uri.path_and_query()?.as_str() == path(&ticket, signature);
    is_the_same.then(|| (ticket, signature.to_owned()))
}

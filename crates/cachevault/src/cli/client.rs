//! A client of `/api/v1` that signs its requests.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use cachevault_api::signing::{SignedRequest, sign};
use cachevault_domain::{Clock, SystemClock};
use serde_json::{Value, json};
use ureq::Body;
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::{ClientOptions, Failure};
use crate::config::default_data_dir;
use crate::data_dir::Credentials;

const TIMEOUT: Duration = Duration::from_secs(90);
/// Maximum time of one stream; it is reopened afterwards.
const STREAM_MAX: Duration = Duration::from_mins(5);
/// Records per request: the maximum of the service.
const PAGE: usize = 1000;
const ANSWER_BYTES_MAX: u64 = 64 << 20;

pub(crate) struct Client {
    agent: ureq::Agent,
    credentials: Credentials,
}

/// The trusted certificates and the client certificate.
fn tls(options: &ClientOptions) -> Result<TlsConfig, Failure> {
    let mut tls = TlsConfig::builder();
    if let Some(path) = &options.ca_file {
        let (certificates, _) = read_pem(path)?;
        tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
    }
    if let Some(path) = &options.client_cert_file {
        let (certificates, key) = read_pem(path)?;
        let missing = || Failure::Usage(format!("`{}` contains no key", path.display()));
        let key = key.ok_or_else(missing)?;
        tls = tls.client_cert(Some(ClientCert::new_with_certs(&certificates, key)));
    }
    Ok(tls.build())
}

/// The certificates of a file, at least one, and its key.
fn read_pem(
    path: &Path,
) -> Result<(Vec<Certificate<'static>>, Option<PrivateKey<'static>>), Failure> {
    let unusable =
        |why: &dyn std::fmt::Display| Failure::Usage(format!("`{}`: {why}", path.display()));
    let text = std::fs::read(path).map_err(|e| unusable(&e))?;
    let (mut certificates, mut key) = (Vec::new(), None);
    for item in parse_pem(&text) {
        match item.map_err(|e| unusable(&e))? {
            PemItem::Certificate(certificate) => certificates.push(certificate),
            PemItem::PrivateKey(found) => key = Some(found),
            _ => {}
        }
    }
    if certificates.is_empty() {
        return Err(unusable(&"the file contains no certificate"));
    }
    Ok((certificates, key))
}

impl Client {
    pub(crate) fn new(options: &ClientOptions) -> Result<Self, Failure> {
        let path = match (&options.credentials, &options.data_dir) {
            (Some(file), _) => file.clone(),
            (None, Some(folder)) => folder.join("credentials.json"),
            (None, None) => default_data_dir()
                .map_err(|e| Failure::Usage(format!("{e:#}")))?
                .join("credentials.json"),
        };
        let mut credentials = Credentials::read(&path).map_err(|e| {
            Failure::Usage(format!("{e:#}; start the service once with this data folder"))
        })?;
        if let Some(endpoint) = &options.endpoint {
            credentials.endpoint = endpoint.trim_end_matches('/').to_owned();
        }
        let config =
            ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false);
        let config = config.tls_config(tls(options)?);
        Ok(Self { agent: config.build().into(), credentials })
    }

    /// Calls `path` under `/api/v1`. An answer without a body is null.
    pub(crate) fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let response = self.send(self.signed(method, path, body)?)?;
        self.answer(response)
    }

    /// Calls `path` under `/api/v1` without a body; `None` for 404.
    pub(crate) fn call_if_there(
        &self,
        method: Method,
        path: &str,
    ) -> Result<Option<Value>, Failure> {
        let response = self.send(self.signed(method, path, None)?)?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.answer(response).map(Some)
    }

    /// Opens the stream at `path` under `/api/v1` with one header. The stream ends after a time, or
    /// with the service.
    pub(crate) fn open(
        &self,
        path: &str,
        (name, value): (&'static str, &str),
    ) -> Result<impl BufRead + use<>, Failure> {
        let mut request = self.signed(Method::GET, path, None)?;
        if let Ok(value) = value.parse() {
            request.headers_mut().insert(name, value);
        }
        let request = self
            .agent
            .configure_request(request)
            .timeout_global(None)
            .timeout_connect(Some(TIMEOUT))
            .timeout_recv_response(Some(TIMEOUT))
            // Detects a connection that was lost silently.
            .timeout_recv_body(Some(STREAM_MAX))
            .build();
        let response = self.send(request)?;
        let status = response.status();
        if !status.is_success() {
            return Err(refusal(status, &self.read(response)?));
        }
        Ok(BufReader::new(response.into_body().into_reader()))
    }

    fn send(&self, request: Request<String>) -> Result<Response<Body>, Failure> {
        self.agent.run(request).map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let endpoint = &self.credentials.endpoint;
        Failure::Unreachable(format!("cannot reach the service at {endpoint}: {error}"))
    }

    fn signed(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Request<String>, Failure> {
        let usage = |e: &dyn std::fmt::Display| {
            Failure::Usage(format!("`{}`: {e}", self.credentials.endpoint))
        };
        let url = url::Url::parse(&format!("{}/api/v1{path}", self.credentials.endpoint))
            .map_err(|e| usage(&e))?;
        let host = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => return Err(usage(&"no host")),
        };
        let body = body.map(Value::to_string).unwrap_or_default();
        let date = SystemClock.now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let headers = [("host", host.as_str()), ("x-sdk-date", date.as_str())];
        let signed = SignedRequest {
            method: method.as_str(),
            path: url.path(),
            query: url.query().unwrap_or_default(),
            headers: &headers,
            body: body.as_bytes(),
        };
        let names = headers.map(|(name, _)| name.to_owned());
        let Credentials { access_key, secret_key, .. } = &self.credentials;
        let authorization = sign(&signed, &names, access_key, secret_key).unwrap_or_default();
        Request::builder()
            .method(method)
            .uri(url.as_str())
            .header("host", &host)
            .header("x-sdk-date", &date)
            .header("authorization", authorization)
            .header("content-type", "application/json")
            .body(body)
            .map_err(|e| usage(&e))
    }

    /// Writes a created credential to a credentials file for the same service.
    pub(crate) fn save(&self, made: &Value, path: &Path) -> anyhow::Result<()> {
        let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
        let credentials = Credentials {
            endpoint: self.credentials.endpoint.clone(),
            region: self.credentials.region.clone(),
            project_id: text("project_id"),
            access_key: text("access_key"),
            secret_key: text("secret_key"),
        };
        credentials.write(path)
    }

    /// All pages of the list at `path`, as one.
    pub(crate) fn list(&self, path: &str) -> Result<Value, Failure> {
        let mut items = Vec::new();
        loop {
            let offset = items.len();
            let join = if path.contains('?') { '&' } else { '?' };
            let page = format!("{path}{join}limit={PAGE}&offset={offset}");
            let page = self.call(Method::GET, &page, None)?;
            let more = page["items"].as_array().cloned().unwrap_or_default();
            let is_last = more.len() < PAGE;
            items.extend(more);
            if is_last {
                return Ok(json!({"items": items, "total": page["total"]}));
            }
        }
    }

    fn answer(&self, response: Response<Body>) -> Result<Value, Failure> {
        let status = response.status();
        let body = self.read(response)?;
        if status.is_success() { Ok(body) } else { Err(refusal(status, &body)) }
    }

    /// The body of an answer; null when it is not JSON.
    fn read(&self, mut response: Response<Body>) -> Result<Value, Failure> {
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        let text = body.read_to_string().map_err(|error| self.unreachable(&error))?;
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}

/// The failure that an error answer describes.
fn refusal(status: StatusCode, body: &Value) -> Failure {
    let message = body["error"]["message"].as_str().or(body["error_msg"].as_str());
    let message = message.map_or_else(|| format!("the service answered {status}"), str::to_owned);
    if status.is_server_error() { Failure::Failed(message) } else { Failure::Refused(message) }
}

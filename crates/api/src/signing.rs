//! Request signatures with the label `SDK-HMAC-SHA256`, in the two dialects of the clients.
//!
//! Both sign a canonical form of the request:
//!
//! ```text
//! METHOD \n URI \n QUERY \n HEADERS \n SIGNED-HEADERS \n HEX(SHA256(body))
//! ```
//!
//! The URI is the decoded path, re-encoded segment by segment, with a `/` at its end. The dialects
//! differ in the form of the query and the header values, in the string to sign, and in the key.
//! [`Dialect::Access`] uses the secret key itself (the vendor's SDKs). [`Dialect::Credential`]
//! derives a key for a day, region and service (two Go clients).

use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const LABEL: &str = "SDK-HMAC-SHA256";
const DATE_HEADER: &str = "x-sdk-date";
const CONTENT_HASH_HEADER: &str = "x-sdk-content-sha256";
const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Maximum of signed headers; clients send far fewer.
const SIGNED_HEADERS_MAX: usize = 64;

/// The parts of a request that its signature covers.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'a> {
    /// Method in upper case.
    pub method: &'a str,
    /// Path as received, percent-encoded.
    pub path: &'a str,
    /// Query as received, without the question mark; may be empty.
    pub query: &'a str,
    /// Headers: names in lower case, values as received.
    pub headers: &'a [(&'a str, &'a str)],
    /// Body.
    pub body: &'a [u8],
}

impl SignedRequest<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| *header == name).map(|(_, value)| *value)
    }
}

/// The dialect of a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialect {
    /// `Access=<key>`.
    Access,
    /// `Credential=<key>/<date>/<region>/<service>/sdk_request`; region and service may be empty.
    Credential {
        /// Day, `yyyymmdd`.
        date: String,
        /// Region.
        region: String,
        /// Service.
        service: String,
    },
}

/// A parsed `Authorization` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// The access key of the signer.
    pub access_key: String,
    /// The dialect of the signature.
    pub dialect: Dialect,
    /// Names of the signed headers in lower case, in the order of signing.
    pub signed_headers: Vec<String>,
    signature: Vec<u8>,
}

/// An `Authorization` header that cannot be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedAuthorization(pub &'static str);

impl Authorization {
    /// Parses the header's value.
    ///
    /// # Errors
    ///
    /// [`MalformedAuthorization`] contains the reason.
    pub fn parse(value: &str) -> Result<Self, MalformedAuthorization> {
        let fields = value
            .strip_prefix(LABEL)
            .and_then(|rest| rest.strip_prefix(' '))
            .ok_or(MalformedAuthorization("unsupported algorithm"))?;
        let (mut identity, mut signed_headers, mut signature) = (None, None, None);
        for field in fields.split(',') {
            let (name, value) =
                field.trim().split_once('=').ok_or(MalformedAuthorization("malformed field"))?;
            match name {
                "Access" => identity = Some((value, Dialect::Access)),
                "Credential" => identity = Some(parse_credential(value)?),
                "SignedHeaders" => signed_headers = Some(parse_signed_headers(value)?),
                "Signature" => {
                    let bytes = hex::decode(value)
                        .map_err(|_| MalformedAuthorization("malformed signature"))?;
                    signature = Some(bytes);
                }
                _ => {}
            }
        }
        let (access_key, dialect) = identity.ok_or(MalformedAuthorization("no access key"))?;
        Ok(Self {
            access_key: access_key.to_owned(),
            dialect,
            signed_headers: signed_headers.ok_or(MalformedAuthorization("no signed headers"))?,
            signature: signature.ok_or(MalformedAuthorization("no signature"))?,
        })
    }

    /// Whether this secret signed the request. The comparison takes constant time.
    pub fn verifies(&self, request: &SignedRequest<'_>, secret_key: &str) -> bool {
        // The signature covers the declared hash, so the hash must match the body.
        let declared = request.header(CONTENT_HASH_HEADER);
        let body_matches = declared.is_none_or(|declared| declared == hex_sha256(request.body));
        match signature(request, &self.dialect, &self.signed_headers, secret_key) {
            Some(expected) => {
                bool::from(expected.as_slice().ct_eq(&self.signature)) && body_matches
            }
            None => false,
        }
    }
}

fn parse_credential(value: &str) -> Result<(&str, Dialect), MalformedAuthorization> {
    let parts: Vec<_> = value.split('/').collect();
    let [access_key, date, region, service, "sdk_request"] = parts[..] else {
        return Err(MalformedAuthorization("malformed credential scope"));
    };
    let [date, region, service] = [date, region, service].map(str::to_owned);
    Ok((access_key, Dialect::Credential { date, region, service }))
}

fn parse_signed_headers(value: &str) -> Result<Vec<String>, MalformedAuthorization> {
    let names: Vec<_> = value.split(';').map(str::to_ascii_lowercase).collect();
    if names.len() > SIGNED_HEADERS_MAX {
        return Err(MalformedAuthorization("too many signed headers"));
    }
    // Without a signed date, the signature would be valid indefinitely.
    if !names.iter().any(|name| name == DATE_HEADER) {
        return Err(MalformedAuthorization("x-sdk-date is not signed"));
    }
    Ok(names)
}

/// Creates the value of an `Authorization` header in the dialect of the vendor's SDKs. `None` when
/// a signed header is missing.
pub fn sign(
    request: &SignedRequest<'_>,
    signed_headers: &[String],
    access_key: &str,
    secret_key: &str,
) -> Option<String> {
    let signature = hex::encode(signature(request, &Dialect::Access, signed_headers, secret_key)?);
    let signed_headers = signed_headers.join(";");
    Some(format!(
        "{LABEL} Access={access_key}, SignedHeaders={signed_headers}, Signature={signature}"
    ))
}

/// Computes the signature; `None` when a signed header is missing.
fn signature(
    request: &SignedRequest<'_>,
    dialect: &Dialect,
    signed_headers: &[String],
    secret_key: &str,
) -> Option<Vec<u8>> {
    let date = request.header(DATE_HEADER)?;
    let canonical = hex_sha256(canonical_request(request, dialect, signed_headers)?.as_bytes());
    Some(match dialect {
        Dialect::Access => {
            let to_sign = format!("{LABEL}\n{date}\n{canonical}");
            hmac(secret_key.as_bytes(), to_sign.as_bytes())
        }
        Dialect::Credential { date: day, region, service } => {
            let scope = format!("{day}/{region}/{service}/sdk_request");
            let to_sign = format!("{LABEL}\n{date}\n{scope}\n{canonical}");
            let secret = format!("SDK{secret_key}").into_bytes();
            let parts = [day.as_str(), region, service, "sdk_request"];
            let key = parts.iter().fold(secret, |key, part| hmac(&key, part.as_bytes()));
            hmac(&key, to_sign.as_bytes())
        }
    })
}

fn canonical_request(
    request: &SignedRequest<'_>,
    dialect: &Dialect,
    signed_headers: &[String],
) -> Option<String> {
    let mut query = canonical_query(request.query, dialect);
    let mut body_hash = match request.header(CONTENT_HASH_HEADER) {
        Some(declared) => declared.to_owned(),
        None => hex_sha256(request.body),
    };
    let is_credential = matches!(dialect, Dialect::Credential { .. });
    if is_credential && request.method == "POST" && request.body.is_empty() {
        // That client treats the query of a POST without a body like a form.
        body_hash = hex_sha256(query.as_bytes());
        query.clear();
    }
    let mut headers = String::new();
    for name in signed_headers {
        let value = request.header(name)?;
        let value = if is_credential { collapse(value) } else { value.trim().to_owned() };
        headers += &format!("{name}:{value}\n");
    }
    let (method, uri, names) =
        (request.method, canonical_uri(request.path), signed_headers.join(";"));
    Some(format!("{method}\n{uri}\n{query}\n{headers}\n{names}\n{body_hash}"))
}

fn canonical_uri(path: &str) -> String {
    let segments =
        path.split('/').map(|segment| encode(&percent_decode_str(segment).decode_utf8_lossy()));
    let mut uri = segments.collect::<Vec<_>>().join("/");
    if !uri.ends_with('/') {
        uri.push('/');
    }
    uri
}

fn canonical_query(query: &str, dialect: &Dialect) -> String {
    let decode =
        |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect();
    match dialect {
        Dialect::Access => pairs.sort(),
        Dialect::Credential { .. } => {
            pairs.sort_by_key(|(name, _)| name.to_lowercase());
            pairs.dedup_by(|later, first| later.0 == first.0);
        }
    }
    let encoded = pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    encoded.collect::<Vec<_>>().join("&")
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, &UNRESERVED).to_string()
}

/// Collapses white space to single spaces, without trimming.
fn collapse(value: &str) -> String {
    let mut collapsed = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            c if c.is_ascii_whitespace() && collapsed.ends_with(' ') => {}
            c if c.is_ascii_whitespace() => collapsed.push(' '),
            c => collapsed.push(c),
        }
    }
    collapsed
}

fn hex_sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mac) => mac,
        // HMAC takes keys of any length (RFC 2104).
        Err(_) => return Vec::new(),
    };
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, serde::Deserialize)]
    struct Vector {
        source: String,
        dialect: String,
        ak: String,
        sk: String,
        method: String,
        path: String,
        query: String,
        headers: std::collections::BTreeMap<String, String>,
        signed_headers: String,
        authorization: Option<String>,
        body: String,
        canonical_request: Option<String>,
        hashed_canonical_request: Option<String>,
        signature: String,
    }

    fn vectors() -> Vec<Vector> {
        serde_json::from_slice(include_bytes!("../../../fixtures/dcs/signature_vectors.json"))
            .unwrap()
    }

    impl Vector {
        /// The client's header. The published example shows only the signature.
        fn authorization(&self) -> Authorization {
            let (signed_headers, signature) = (&self.signed_headers, &self.signature);
            let shown = self.authorization.clone().unwrap_or_else(|| {
                format!("{LABEL} Access=EXAMPLE00, SignedHeaders={signed_headers}, Signature={signature}")
            });
            Authorization::parse(&shown).unwrap()
        }

        fn with_request<T>(&self, act: impl FnOnce(&SignedRequest<'_>) -> T) -> T {
            let headers: Vec<_> =
                self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            act(&SignedRequest {
                method: &self.method,
                path: &self.path,
                query: &self.query,
                headers: &headers,
                body: self.body.as_bytes(),
            })
        }

        fn verifies(&self) -> bool {
            self.with_request(|request| self.authorization().verifies(request, &self.sk))
        }

        fn changed(&self, change: impl FnOnce(&mut Self)) -> Self {
            let mut changed = self.clone();
            change(&mut changed);
            changed
        }
    }

    #[test]
    fn every_vector_verifies_and_its_canonical_form_is_the_clients() {
        assert_eq!(vectors().len(), 8);
        for vector in vectors() {
            assert!(vector.verifies(), "{}", vector.source);
            let Authorization { dialect, signed_headers, .. } = vector.authorization();
            assert_eq!(vector.dialect == "Access", dialect == Dialect::Access);
            let canonical =
                vector.with_request(|r| canonical_request(r, &dialect, &signed_headers)).unwrap();
            if let Some(expected) = &vector.canonical_request {
                assert_eq!(&canonical, expected, "{}", vector.source);
            }
            if let Some(expected) = &vector.hashed_canonical_request {
                assert_eq!(&hex_sha256(canonical.as_bytes()), expected);
            }
            if vector.dialect == "Access" && vector.authorization.is_some() {
                let signed =
                    vector.with_request(|r| sign(r, &signed_headers, &vector.ak, &vector.sk));
                assert_eq!(signed, vector.authorization);
            }
        }
    }

    #[test]
    fn a_changed_byte_anywhere_does_not_verify() {
        for vector in vectors() {
            let mut changes = vec![
                vector.changed(|v| v.method = "PATCH".into()),
                vector.changed(|v| v.path = v.path.replacen('v', "w", 1)),
                vector.changed(|v| v.query += "&x=1"),
                vector.changed(|v| v.body += " "),
                vector.changed(|v| v.sk += "x"),
            ];
            for name in vector.signed_headers.split(';') {
                changes.push(vector.changed(|v| v.headers.get_mut(name).unwrap().push('x')));
                changes.push(vector.changed(|v| drop(v.headers.remove(name))));
            }
            for change in changes {
                assert!(!change.verifies(), "{}", vector.source);
            }
            let mut other = vector.authorization();
            other.signature[31] ^= 1;
            assert!(!vector.with_request(|request| other.verifies(request, &vector.sk)));
            other.signature.truncate(31);
            assert!(!vector.with_request(|request| other.verifies(request, &vector.sk)));
        }
    }

    #[test]
    fn a_declared_hash_must_be_that_of_the_body() {
        let headers =
            [("x-sdk-date", "20261121T170055Z"), ("x-sdk-content-sha256", "UNSIGNED-PAYLOAD")];
        let request =
            SignedRequest { method: "POST", path: "/", query: "", headers: &headers, body: b"{}" };
        let signed = sign(&request, &["x-sdk-date".to_owned()], "AK", "SK").unwrap();
        assert!(!Authorization::parse(&signed).unwrap().verifies(&request, "SK"));
        let hash = hex_sha256(b"{}");
        let headers = [("x-sdk-date", "20261121T170055Z"), ("x-sdk-content-sha256", hash.as_str())];
        let request = SignedRequest { headers: &headers, ..request };
        let signed = sign(&request, &["x-sdk-date".to_owned()], "AK", "SK").unwrap();
        assert!(Authorization::parse(&signed).unwrap().verifies(&request, "SK"));
    }

    #[test]
    fn unverifiable_headers_are_refused() {
        for value in [
            "",
            "Basic dXNlcjpwYXNz",
            "SDK-HMAC-SM3 Access=A, SignedHeaders=x-sdk-date, Signature=00",
            "SDK-HMAC-SHA256 Access=A, SignedHeaders=host, Signature=00",
            "SDK-HMAC-SHA256 Access=A, SignedHeaders=x-sdk-date",
            "SDK-HMAC-SHA256 Access=A, SignedHeaders=x-sdk-date, Signature=zz",
            "SDK-HMAC-SHA256 Credential=A/20261121/x, SignedHeaders=x-sdk-date, Signature=00",
            "SDK-HMAC-SHA256 nonsense",
        ] {
            assert!(Authorization::parse(value).is_err(), "{value}");
        }
    }

    #[test]
    fn header_values_are_written_as_each_dialect_does() {
        assert_eq!(collapse("  a \t b  "), " a b ");
        let query = "b=2&a=1&A=0&a=0&c=%20x+y&d";
        assert_eq!(canonical_query(query, &Dialect::Access), "A=0&a=0&a=1&b=2&c=%20x%20y&d=");
        let credential = Dialect::Credential {
            date: String::new(),
            region: String::new(),
            service: String::new(),
        };
        assert_eq!(canonical_query("b=2&a=1&a=0", &credential), "a=1&b=2");
        assert_eq!(canonical_uri("/v2/a%20b"), "/v2/a%20b/");
        assert_eq!(canonical_uri("/"), "/");
    }
}

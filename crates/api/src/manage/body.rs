//! Parsing of required request bodies.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use utoipa::ToSchema;

use super::error::Error;

/// Parses the body of a request.
pub(super) fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(unexpected)
}

/// The error of an invalid body. Unknown and missing fields are named. Other errors give only the
/// position, because the value may be a secret.
pub(super) fn unexpected(error: serde_json::Error) -> Error {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let names_fields = text.starts_with("unknown field") || text.starts_with("missing field");
    let what = if names_fields { text } else { format!("error at line {line} column {column}") };
    Error::BadRequest(format!("invalid request body: {what}"))
}

/// Parses a field. The error names the field and the reason.
pub(super) fn field<T: std::str::FromStr<Err: std::fmt::Display>>(
    name: &str,
    text: &str,
) -> Result<T, Error> {
    text.parse().map_err(|e| Error::BadRequest(format!("`{name}`: {e}")))
}

/// Parses an optional field.
pub(super) fn field_if<T: std::str::FromStr<Err: std::fmt::Display>>(
    name: &str,
    text: Option<&str>,
) -> Result<Option<T>, Error> {
    text.map(|text| field(name, text)).transpose()
}

/// Distinguishes a missing field from a null one.
pub(super) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A credential with its secret, which is shown only once.
#[derive(Serialize, ToSchema)]
pub(super) struct WithSecret<T> {
    #[serde(flatten)]
    pub(super) thing: T,
    pub(super) secret_key: String,
}

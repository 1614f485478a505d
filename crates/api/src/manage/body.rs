//! Bodies that have to be there.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use utoipa::ToSchema;

use super::error::Error;

/// The body of a request.
pub(super) fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(unexpected)
}

/// What is wrong with a body, by its place alone where the text could hold a secret: an unknown or
/// missing field is named, a value never.
pub(super) fn unexpected(error: serde_json::Error) -> Error {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let names_fields = text.starts_with("unknown field") || text.starts_with("missing field");
    let what = if names_fields { text } else { format!("see line {line} column {column}") };
    Error::BadRequest(format!("the body is not what is expected: {what}"))
}

/// What a field says, in the words of its error where it cannot be.
pub(super) fn field<T: std::str::FromStr<Err: std::fmt::Display>>(
    name: &str,
    text: &str,
) -> Result<T, Error> {
    text.parse().map_err(|e| Error::BadRequest(format!("`{name}`: {e}")))
}

/// The same of a field that may be left out.
pub(super) fn field_if<T: std::str::FromStr<Err: std::fmt::Display>>(
    name: &str,
    text: Option<&str>,
) -> Result<Option<T>, Error> {
    text.map(|text| field(name, text)).transpose()
}

/// A field that is left out is told from one that is null.
pub(super) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A credential with its secret: shown once.
#[derive(Serialize, ToSchema)]
pub(super) struct WithSecret<T> {
    #[serde(flatten)]
    pub(super) thing: T,
    pub(super) secret_key: String,
}

//! Extractors for path parameters and bodies, with the documented error for each invalid value.

use std::marker::PhantomData;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use bytes::Bytes;
use cachevault_domain::{BackupId, Caller, InstanceId, ProjectId};
use serde::de::DeserializeOwned;

use super::error::{DcsError, Error, Version};
use crate::auth::Identity;

/// `/{project_id}/…`: the caller, in the project of the path.
pub(crate) struct InProject<V> {
    pub(crate) caller: Caller,
    version: PhantomData<V>,
}

/// `/{project_id}/instances/{instance_id}/…`
pub(crate) struct OfInstance<V> {
    pub(crate) caller: Caller,
    pub(crate) instance: InstanceId,
    version: PhantomData<V>,
}

/// `/{project_id}/instances/{instance_id}/backups/{backup_id}`
pub(crate) struct OfBackup<V> {
    pub(crate) caller: Caller,
    pub(crate) instance: InstanceId,
    pub(crate) backup: BackupId,
    version: PhantomData<V>,
}

impl<S: Send + Sync, V: Version> FromRequestParts<S> for InProject<V> {
    type Rejection = Error<V>;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error<V>> {
        let text = path_parameter(parts, state, "project_id").await;
        let project: ProjectId =
            text.and_then(|text| text.parse().ok()).ok_or(DcsError::InvalidProjectId)?;
        // A request without an identity has bypassed authentication. Refuse it.
        let identity = parts.extensions.get::<Identity>().ok_or(DcsError::Internal)?;
        let named = identity.named_project.as_deref();
        if !identity.caller.is_in(&project) || named.is_some_and(|named| named != project.as_str())
        {
            return Err(DcsError::ProjectMismatch.into());
        }
        Ok(Self { caller: identity.caller.clone(), version: PhantomData })
    }
}

impl<S: Send + Sync, V: Version> FromRequestParts<S> for OfInstance<V> {
    type Rejection = Error<V>;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error<V>> {
        let InProject { caller, version } =
            InProject::<V>::from_request_parts(parts, state).await?;
        let text = path_parameter(parts, state, "instance_id").await;
        let instance =
            text.and_then(|text| text.parse().ok()).ok_or(DcsError::InvalidInstanceId)?;
        Ok(Self { caller, instance, version })
    }
}

impl<S: Send + Sync, V: Version> FromRequestParts<S> for OfBackup<V> {
    type Rejection = Error<V>;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error<V>> {
        let OfInstance { caller, instance, version } =
            OfInstance::<V>::from_request_parts(parts, state).await?;
        let text = path_parameter(parts, state, "backup_id").await;
        // An invalid id cannot belong to a record.
        let backup = text.and_then(|text| text.parse().ok()).ok_or(DcsError::BackupNotFound)?;
        Ok(Self { caller, instance, backup, version })
    }
}

async fn path_parameter<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    name: &str,
) -> Option<String> {
    let parameters = RawPathParams::from_request_parts(parts, state).await.ok()?;
    let found = parameters.iter().find(|(parameter, _)| *parameter == name)?;
    Some(found.1.to_owned())
}

/// Parses a JSON object. The body is required.
pub(crate) fn parse_needed_body<T: DeserializeOwned>(body: &Bytes) -> Result<T, DcsError> {
    if body.is_empty() { Err(DcsError::EmptyBody) } else { parse_object(body) }
}

/// Parses a JSON object. An empty body counts as an empty object.
pub(crate) fn parse_body<T: DeserializeOwned + Default>(body: &Bytes) -> Result<T, DcsError> {
    if body.is_empty() { Ok(T::default()) } else { parse_object(body) }
}

/// Unknown fields are ignored.
fn parse_object<T: DeserializeOwned>(body: &Bytes) -> Result<T, DcsError> {
    // serde also reads structures from arrays; the API accepts only objects.
    let object: serde_json::Map<_, _> =
        serde_json::from_slice(body).map_err(|_| DcsError::MalformedBody)?;
    T::deserialize(serde_json::Value::Object(object)).map_err(|_| DcsError::MalformedBody)
}

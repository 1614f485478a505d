//! `/api/v1/audit`: recorded calls.

use axum::extract::{RawQuery, State};
use axum::{Extension, Json};
use cachevault_domain::{AccessKey, AuditRecord};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Error;
use super::instances::{PAGE_DEFAULT, PAGE_MAX};
use super::parameters::AuditQuery;
use crate::Api;
use crate::auth::Identity;
use crate::query::Query;

/// A changing call, a download, or a call that failed authentication.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditBody {
    request_id: String,
    access_key: Option<String>,
    user: Option<String>,
    address: Option<String>,
    operation: String,
    resource: String,
    at: String,
    /// The HTTP status; null while the call runs, and after the service or the client disconnected.
    status: Option<u16>,
    error: Option<String>,
    /// Bytes sent; only for downloads.
    bytes: Option<u64>,
    /// The number of similar calls that the record stands for. Records of unauthenticated calls are
    /// sampled.
    times: u32,
    answered_at: Option<String>,
}

/// A page of recorded calls.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditPageBody {
    items: Vec<AuditBody>,
}

impl From<&AuditRecord> for AuditBody {
    fn from(AuditRecord { call, result }: &AuditRecord) -> Self {
        Self {
            request_id: call.request.to_string(),
            access_key: call.access_key.as_ref().map(AccessKey::to_string),
            user: call.user.clone(),
            address: call.address.map(|address| address.to_string()),
            operation: call.operation.clone(),
            resource: call.resource.clone(),
            at: call.at.to_string(),
            status: result.as_ref().map(|result| result.status),
            error: result.as_ref().and_then(|result| result.error.clone()),
            bytes: result.as_ref().and_then(|result| result.bytes),
            times: result.as_ref().map_or(1, |result| result.times),
            answered_at: result.as_ref().map(|result| result.at.to_string()),
        }
    }
}

/// List changing calls, downloads and refused credentials
#[utoipa::path(get, path = "/audit", operation_id = "ListAudit", tag = "Audit",
    params(AuditQuery),
    responses((status = 200, body = AuditPageBody)))]
pub(super) async fn list(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Result<Json<AuditPageBody>, Error> {
    let query = Query::parse(query.as_deref());
    let limit = query.limit(PAGE_DEFAULT, PAGE_MAX)?;
    let filter = query.audit_filter()?;
    let found = api.app.list_audit(&identity.caller, &filter, limit).await?;
    Ok(Json(AuditPageBody { items: found.iter().map(AuditBody::from).collect() }))
}

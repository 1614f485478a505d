//! Records every call that may change something, before it does.

use std::net::SocketAddr;

use axum::Extension;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cachevault_domain::NewAuditRecord;

use crate::Api;
use crate::auth::Identity;
use crate::gateway::GatewayError;
use crate::query::Query;
use crate::request;

/// Routes about all projects, which only administrators of the service use.
const OF_SERVICE: [&str; 2] = ["/api/v1/projects", "/api/v1/users"];

/// The code that an error is answered with, for the record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorCode(pub(crate) &'static str);

/// Records a call, lets it through, and records how it was answered. What only reads is not
/// recorded.
pub(crate) async fn record(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    request: Request,
    next: Next,
) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return next.run(request).await;
    }
    let Some(call) = call(&api, &identity, &request) else {
        return GatewayError::Internal.into_response();
    };
    if let Err(error) = api.app.begin_audit(&call).await {
        tracing::error!(error = &error as &dyn std::error::Error, "a call cannot be recorded");
        return GatewayError::Internal.into_response();
    }
    let response = next.run(request).await;
    let code = response.extensions().get::<ErrorCode>().map(|code| code.0.to_owned());
    if let Err(error) = api.app.end_audit(&call.request, response.status().as_u16(), code).await {
        // It was done all the same, and the record says that it was asked for.
        tracing::error!(error = &error as &dyn std::error::Error, "an answer cannot be recorded");
    }
    response
}

fn call(api: &Api, identity: &Identity, request: &Request) -> Option<NewAuditRecord> {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(|| request.uri().path(), MatchedPath::as_str);
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let call = identity.caller.call(request::current()?, api.app.clock.now());
    // What is done to the service, or in another project, is nothing that this project may learn.
    let of_service = OF_SERVICE.iter().any(|prefix| route.starts_with(prefix));
    let names_project = Query::parse(request.uri().query()).project().is_some();
    let project = call.project.clone().filter(|_| !of_service && !names_project);
    Some(NewAuditRecord {
        project,
        address: address.map(|ConnectInfo(address)| address.ip().to_canonical()),
        operation: format!("{} {route}", request.method()),
        resource: request.uri().path().to_owned(),
        ..call
    })
}

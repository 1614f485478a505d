//! Records every call that may change something, before it does.

use axum::Extension;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cachevault_app::{AppError, Named, ProjectKey};
use cachevault_domain::{Caller, NewAuditRecord};

use crate::Api;
use crate::auth::Identity;
use crate::client::client_address;
use crate::gateway::GatewayError;
use crate::query::Query;
use crate::request;

/// Routes about all projects, which only administrators of the service use.
const OF_SERVICE: [&str; 2] = ["/api/v1/projects", "/api/v1/users"];
/// Routes whose query may name a project.
const POLICIES: &str = "/api/v1/policies";
/// Routes that name a credential, which may be of any project.
const CREDENTIAL: &str = "/api/v1/credentials/{access_key}";

/// The code that an error is answered with, for the record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorCode(pub(crate) &'static str);

/// Records a call, lets it through, and records how it was answered. What only reads is not
/// recorded, nor what was refused because too much of the same credential was being answered.
pub(crate) async fn record(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return next.run(request).await;
    }
    let Some(call) = call(&api, &identity, &request) else {
        return GatewayError::Internal.into_response();
    };
    let named = named(&request, parameters.ok());
    let id = call.request.clone();
    if let Err(error) = begin(&api, &identity.caller, call, named).await {
        tracing::error!(error = &error as &dyn std::error::Error, "a call cannot be recorded");
        return GatewayError::Internal.into_response();
    }
    let response = next.run(request).await;
    let code = response.extensions().get::<ErrorCode>().map(|code| code.0.to_owned());
    if let Err(error) = api.app.end_audit(&id, response.status().as_u16(), code).await {
        // It was done all the same, and the record says that it was asked for.
        tracing::error!(error = &error as &dyn std::error::Error, "an answer cannot be recorded");
    }
    response
}

async fn begin(
    api: &Api,
    caller: &Caller,
    mut call: NewAuditRecord,
    named: Option<Named>,
) -> Result<(), AppError> {
    if let Some(named) = named
        && !api.app.is_about_own_project(caller, &named).await?
    {
        call.project = None;
    }
    api.app.begin_audit(&call).await
}

fn call(api: &Api, identity: &Identity, request: &Request) -> Option<NewAuditRecord> {
    let call = identity.caller.call(request::current()?, api.app.clock.now());
    let route = route(request);
    // What is done to the service is nothing that this project may learn.
    let of_service = OF_SERVICE.iter().any(|prefix| route.starts_with(prefix));
    Some(NewAuditRecord {
        project: call.project.clone().filter(|_| !of_service),
        address: client_address(request.extensions()),
        operation: format!("{} {route}", request.method()),
        resource: request.uri().path().to_owned(),
        ..call
    })
}

/// What a call names that can be of another project. On any other route the same words in a query
/// mean nothing, and change nothing.
fn named(request: &Request, parameters: Option<RawPathParams>) -> Option<Named> {
    let route = route(request);
    if route.starts_with(POLICIES) {
        let query = Query::parse(request.uri().query());
        return query.project().map(|text| Named::Project(ProjectKey::of(text)));
    }
    if !route.starts_with(CREDENTIAL) {
        return None;
    }
    let parameters = parameters?;
    let (_, key) = parameters.iter().find(|(name, _)| *name == "access_key")?;
    key.parse().ok().map(Named::Credential)
}

fn route(request: &Request) -> &str {
    let route = request.extensions().get::<MatchedPath>();
    route.map_or_else(|| request.uri().path(), MatchedPath::as_str)
}

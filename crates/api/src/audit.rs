//! Audit records: every call that may change something (recorded before it runs), every download,
//! and a sample of the unauthenticated calls.

use axum::Extension;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::http::{Extensions, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cachevault_app::{App, AppError, Named, ProjectKey};
use cachevault_domain::{
    AccessKey, Caller, NewAuditRecord, ProjectId, RequestId, Subject, UserRef,
};
use jiff::Timestamp;
use tokio_util::task::TaskTracker;

use crate::Api;
use crate::auth::Identity;
use crate::client::{client_address, network};
use crate::gateway::GatewayError;
use crate::query::Query;
use crate::refusals::RefusalKind;
use crate::request;

/// Routes about all projects, which only administrators of the service use.
const OF_SERVICE: [&str; 2] = ["/api/v1/projects", "/api/v1/users"];
/// Routes whose query may name a project.
const POLICIES: &str = "/api/v1/policies";
/// Routes that name a credential, which may be of any project.
const CREDENTIAL: &str = "/api/v1/credentials/{access_key}";

/// The error code of an answer, as the audit record shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorCode(pub(crate) &'static str);

/// Error code of a download that ended early.
const BROKEN_OFF: &str = "broken_off";

/// Records a call, runs it, and records the answer. Calls that only read are not recorded, nor
/// calls refused because their credential exceeded its concurrency limit.
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
        tracing::error!(error = &error as &dyn std::error::Error, "cannot record the call");
        return GatewayError::Internal.into_response();
    }
    let response = next.run(request).await;
    let code = response.extensions().get::<ErrorCode>().map(|code| code.0.to_owned());
    if let Err(error) = api.app.end_audit(&id, response.status().as_u16(), code).await {
        // The call has already run; its record shows that it was requested.
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "cannot record the answer of a call"
        );
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

/// The identity that a refused call claimed.
#[derive(Debug, Clone, Default)]
pub(crate) enum Claimed {
    /// No existing user or credential.
    #[default]
    Nobody,
    /// The holder of an access key.
    Holder(Caller),
    /// A user who signs in.
    User(UserRef),
}

impl Claimed {
    fn call(self, request: RequestId, at: Timestamp) -> NewAuditRecord {
        let nobody = Caller::without_project(Subject::Service);
        match self {
            Self::Nobody => nobody.call(request, at),
            Self::Holder(caller) => caller.call(request, at),
            // Users belong to the whole service, not to a project.
            Self::User(user) => {
                NewAuditRecord { user: Some(user.name.to_string()), ..nobody.call(request, at) }
            }
        }
    }
}

/// Records a call with wrong credentials, within the limits of [`crate::refusals`]. Names that do
/// not exist are not recorded: such a name may be a password in the wrong field.
pub(crate) async fn record_refusal(
    api: &Api,
    (method, uri, extensions): (&Method, &Uri, &Extensions),
    claimed: Claimed,
    (status, code): (StatusCode, &'static str),
) {
    let (Some(request), now) = (request::current(), api.app.clock.now()) else { return };
    let address = client_address(extensions);
    let route = extensions.get::<MatchedPath>().map_or_else(|| uri.path(), MatchedPath::as_str);
    let call = NewAuditRecord {
        address,
        operation: format!("{method} {route}"),
        resource: uri.path().to_owned(),
        ..claimed.call(request, now)
    };
    let who = call.access_key.as_ref().map(AccessKey::to_string).or(call.user.clone());
    let kind = RefusalKind { address: address.map(network), who, code };
    let Some(times) = api.refusals.count(kind, now) else { return };
    let recorded = api.app.record_refusal(&call, status.as_u16(), code.to_owned(), times).await;
    if let Err(error) = recorded {
        // The call is refused in any case, and the log shows it.
        tracing::error!(error = &error as &dyn std::error::Error, "cannot record a refused call");
    }
}

/// The audit record of a download. Dropping it records how the download ended.
#[derive(Debug)]
pub(crate) struct DownloadRecord {
    app: App,
    /// The tracker of records that are still being written.
    ends: TaskTracker,
    request: RequestId,
    /// The status of the answer.
    pub(crate) status: StatusCode,
    /// The reason why the download is incomplete.
    pub(crate) error: Option<&'static str>,
    /// Bytes sent so far.
    pub(crate) bytes: u64,
}

impl DownloadRecord {
    /// Records that a download of one of the project's files begins.
    pub(crate) async fn begin(
        api: &Api,
        project: &ProjectId,
        uri: &Uri,
        extensions: &Extensions,
    ) -> Result<Self, GatewayError> {
        let request = request::current().ok_or(GatewayError::Internal)?;
        let call = NewAuditRecord {
            request: request.clone(),
            project: Some(project.clone()),
            access_key: None,
            user: None,
            address: client_address(extensions),
            operation: "GET /download".to_owned(),
            resource: uri.path().to_owned(),
            at: api.app.clock.now(),
        };
        api.app.begin_audit(&call).await.map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot record the download");
            GatewayError::Internal
        })?;
        let (app, ends) = (api.app.clone(), api.downloads.ends.clone());
        Ok(Self { app, ends, request, status: StatusCode::OK, error: Some(BROKEN_OFF), bytes: 0 })
    }
}

impl Drop for DownloadRecord {
    fn drop(&mut self) {
        // Without a runtime the process is exiting, and the record keeps no end.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (app, request, bytes) = (self.app.clone(), self.request.clone(), self.bytes);
        let (status, error) = (self.status.as_u16(), self.error.map(str::to_owned));
        let end = async move {
            if let Err(error) = app.end_download(&request, status, error, bytes).await {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "cannot record the end of a download");
            }
        };
        self.ends.spawn_on(end, &runtime);
    }
}

fn call(api: &Api, identity: &Identity, request: &Request) -> Option<NewAuditRecord> {
    let call = identity.caller.call(request::current()?, api.app.clock.now());
    let route = route(request);
    // A project must not learn of changes to the whole service.
    let of_service = OF_SERVICE.iter().any(|prefix| route.starts_with(prefix));
    Some(NewAuditRecord {
        project: call.project.clone().filter(|_| !of_service),
        address: client_address(request.extensions()),
        operation: format!("{} {route}", request.method()),
        resource: request.uri().path().to_owned(),
        ..call
    })
}

/// The project or credential that a call names and that may belong to another project. Other routes
/// ignore these parameters.
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

//! Errors of the management API: a code for programs and a message for people.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use cachevault_app::{AccessError, AppError};
use cachevault_domain::ProbeError;
use serde::Serialize;
use utoipa::ToSchema;

use crate::audit::ErrorCode;
use crate::dcs::DcsError;
use crate::request::current_id;

/// An error of `/api/v1`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// A code for programs.
    #[schema(example = "instance_not_found")]
    code: &'static str,
    /// A message for people.
    #[schema(example = "this instance does not exist")]
    message: String,
    request_id: String,
}

/// An error for a client of `/api/v1`.
#[derive(Debug)]
pub(crate) enum Error {
    App(AppError),
    /// The request is invalid, with the reason.
    BadRequest(String),
}

impl From<AppError> for Error {
    fn from(error: AppError) -> Self {
        Self::App(error)
    }
}

impl From<DcsError> for Error {
    fn from(error: DcsError) -> Self {
        Self::BadRequest(error.to_string())
    }
}

impl Error {
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::App(error) => match error {
                AppError::Denied(_) => (StatusCode::FORBIDDEN, "denied"),
                AppError::Access(error) => access(error),
                AppError::InstanceNotFound => (StatusCode::NOT_FOUND, "instance_not_found"),
                AppError::BackupNotFound => (StatusCode::NOT_FOUND, "backup_not_found"),
                AppError::BackupFilesGone(_) => (StatusCode::NOT_FOUND, "backup_files_gone"),
                AppError::RestoreNotFound => (StatusCode::NOT_FOUND, "restore_not_found"),
                AppError::WebhookNotFound => (StatusCode::NOT_FOUND, "webhook_not_found"),
                AppError::InvalidWebhook(_) => (StatusCode::BAD_REQUEST, "invalid_webhook"),
                AppError::TooManyWebhooks => (StatusCode::CONFLICT, "too_many_webhooks"),
                AppError::BackupPolicyNotFound => {
                    (StatusCode::NOT_FOUND, "backup_policy_not_found")
                }
                AppError::AuditRecordNotFound => (StatusCode::BAD_REQUEST, "marker_not_found"),
                AppError::BackupNotRestorable | AppError::BackupDamaged(_) => {
                    (StatusCode::CONFLICT, "backup_not_restorable")
                }
                AppError::BackupUnverified { .. } => (StatusCode::CONFLICT, "backup_unverified"),
                AppError::CannotPlan { .. } => (StatusCode::CONFLICT, "instance_down"),
                AppError::RestoreBlocked(_) => {
                    (StatusCode::UNPROCESSABLE_ENTITY, "restore_blocked")
                }
                AppError::InstanceBusy(_) => (StatusCode::CONFLICT, "instance_busy"),
                AppError::InstanceDown(_) => (StatusCode::CONFLICT, "instance_down"),
                AppError::SingleNode => (StatusCode::CONFLICT, "single_node"),
                AppError::BackupUnsettled(_) => (StatusCode::CONFLICT, "backup_not_ended"),
                AppError::BackupEnded(_) => (StatusCode::CONFLICT, "backup_ended"),
                AppError::RestoreEnded(_) => (StatusCode::CONFLICT, "restore_ended"),
                AppError::TargetTouched => (StatusCode::CONFLICT, "restore_touched_target"),
                AppError::BackupHeld => (StatusCode::CONFLICT, "backup_held"),
                AppError::InstanceHasBackups(_) => (StatusCode::CONFLICT, "instance_has_backups"),
                AppError::TooManyTags => (StatusCode::CONFLICT, "too_many_tags"),
                AppError::NameTaken => (StatusCode::CONFLICT, "name_taken"),
                AppError::InvalidName(_) => (StatusCode::BAD_REQUEST, "invalid_name"),
                AppError::InvalidConnection(_) => (StatusCode::BAD_REQUEST, "bad_request"),
                AppError::ConnectionChanged => (StatusCode::CONFLICT, "connection_changed"),
                AppError::WrongPassword => (StatusCode::FORBIDDEN, "wrong_password"),
                AppError::CannotAdopt(reason) => {
                    (StatusCode::UNPROCESSABLE_ENTITY, probe_code(reason))
                }
                AppError::RemovalFailed { .. } => (StatusCode::BAD_GATEWAY, "removal_failed"),
                AppError::CatalogFailed(_)
                | AppError::HashingFailed(_)
                | AppError::KeystoneFailed(_)
                | AppError::SecretUnreadable(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
                AppError::DiskShortage(_) => (StatusCode::SERVICE_UNAVAILABLE, "disk_low"),
                AppError::StoreUnavailable(_) => {
                    (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable")
                }
            },
        }
    }

    fn message(&self) -> String {
        match self {
            Self::BadRequest(reason) => reason.clone(),
            Self::App(error) => error.to_string(),
        }
    }
}

fn access(error: &AccessError) -> (StatusCode, &'static str) {
    match error {
        AccessError::NotAdministrator(_) => (StatusCode::FORBIDDEN, "not_administrator"),
        AccessError::ChangesAdministrator => (StatusCode::FORBIDDEN, "changes_administrator"),
        AccessError::GrantsTooMuch(_) => (StatusCode::FORBIDDEN, "grants_too_much"),
        AccessError::SignInRefused => (StatusCode::FORBIDDEN, "wrong_password"),
        AccessError::ProjectNotFound => (StatusCode::NOT_FOUND, "project_not_found"),
        AccessError::UserNotFound => (StatusCode::NOT_FOUND, "user_not_found"),
        AccessError::GrantNotFound => (StatusCode::NOT_FOUND, "grant_not_found"),
        AccessError::CredentialNotFound => (StatusCode::NOT_FOUND, "credential_not_found"),
        AccessError::PolicyNotFound => (StatusCode::NOT_FOUND, "policy_not_found"),
        AccessError::RoleNotFound => (StatusCode::UNPROCESSABLE_ENTITY, "role_not_found"),
        AccessError::Taken(_) => (StatusCode::CONFLICT, "name_taken"),
        AccessError::PolicyInUse => (StatusCode::CONFLICT, "policy_in_use"),
        AccessError::CredentialOver => (StatusCode::CONFLICT, "credential_over"),
        AccessError::TokenChain => (StatusCode::FORBIDDEN, "token_chain"),
        AccessError::OwnAccess => (StatusCode::CONFLICT, "own_access"),
        AccessError::AdministratorOfUser => (StatusCode::BAD_REQUEST, "administrator_of_user"),
        AccessError::BadPassword => (StatusCode::BAD_REQUEST, "bad_password"),
    }
}

fn probe_code(reason: &ProbeError) -> &'static str {
    match reason {
        ProbeError::UnknownHost { .. } => "unknown_host",
        ProbeError::NotAllowed { .. } => "host_not_allowed",
        ProbeError::Refused { .. } => "connection_refused",
        ProbeError::Unreachable { .. } => "unreachable",
        ProbeError::TimedOut { .. } => "timed_out",
        ProbeError::Tls { .. } => "tls_failed",
        ProbeError::NotRedis { .. } => "not_redis",
        ProbeError::PasswordRequired { .. } => "password_required",
        ProbeError::WrongPassword { .. } => "wrong_password",
        ProbeError::Denied { .. } => "permission_missing",
        ProbeError::UnsupportedVersion { .. } => "unsupported_version",
        ProbeError::Cluster { .. } => "cluster",
        ProbeError::Sentinel { .. } => "sentinel",
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, code) = self.status_and_code();
        if let (true, Self::App(error)) = (status.is_server_error(), &self) {
            // Logged once, here. The client never sees an internal cause.
            tracing::error!(error = error as &dyn std::error::Error, "request failed");
        }
        let error = ErrorDetail { code, message: self.message(), request_id: current_id() };
        (status, Extension(ErrorCode(code)), Json(ErrorBody { error })).into_response()
    }
}

//! The stored password of an instance. Changing it never changes the server's own password.

use cachevault_app::AppError;
use cachevault_domain::{Caller, InstanceId, ProbeError};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::DcsError;
use crate::Api;

/// A change of the stored password.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PasswordWish {
    /// The stored password.
    #[schema(value_type = String, format = Password)]
    old_password: Option<SecretString>,
    /// The password that the server accepts now.
    #[schema(value_type = String, format = Password, max_length = 1024)]
    new_password: Option<SecretString>,
}

/// The result of a password change. The lock fields are empty: the service locks nobody out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PasswordChanged {
    #[schema(example = "success")]
    result: &'static str,
    message: &'static str,
    lock_time: &'static str,
    lock_time_left: &'static str,
    retry_times_left: &'static str,
}

impl PasswordWish {
    /// Stores the new password if the server accepts it.
    pub(crate) async fn grant(
        self,
        api: &Api,
        caller: &Caller,
        instance: InstanceId,
    ) -> Result<PasswordChanged, DcsError> {
        let old = self.old_password.ok_or(DcsError::InvalidField("old_password"))?;
        let new = self.new_password.ok_or(DcsError::InvalidField("new_password"))?;
        let replaced = api.app.replace_password(caller, instance, &old, new).await;
        replaced.map_err(refusal)?;
        Ok(PasswordChanged {
            result: "success",
            message: "",
            lock_time: "",
            lock_time_left: "",
            retry_times_left: "",
        })
    }
}

fn refusal(error: AppError) -> DcsError {
    let code = match &error {
        AppError::CannotAdopt(
            ProbeError::WrongPassword { .. } | ProbeError::PasswordRequired { .. },
        ) => DcsError::WrongPassword,
        AppError::CannotAdopt(_) => DcsError::NotRunning,
        AppError::InvalidConnection(_) => DcsError::InvalidField("new_password"),
        _ => return error.into(),
    };
    // The vendor's error has no field for the reason.
    tracing::warn!(%error, "request refused");
    code
}

//! Changes to an instance, in the format of `/api/v1`.

use cachevault_domain::{
    BackupPolicy, ConnectionChange, HourWindow, InstanceChange, InvalidPolicy, SaveDays,
    StoredPolicy, Weekdays, WeeklyPlan,
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Changes to an instance. Omitted and null fields stay unchanged.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeInstanceBody {
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    name: Option<String>,
    #[schema(max_length = 1024)]
    description: Option<String>,
    /// The maintenance window: whole hours, UTC.
    #[schema(example = "02:00-06:00", pattern = "^([01][0-9]|2[0-3]):00-([01][0-9]|2[0-4]):00$")]
    maintenance: Option<String>,
    policy: Option<PolicyBody>,
    /// Host name or address.
    #[schema(example = "10.0.0.7", min_length = 1, max_length = 253)]
    host: Option<String>,
    #[schema(example = 6379, minimum = 1, maximum = 65535)]
    port: Option<u16>,
    /// ACL user; an empty text selects the server's default user.
    #[schema(max_length = 1024)]
    username: Option<String>,
    /// A stored password must be repeated when the address changes or TLS is turned off. An empty
    /// text removes it.
    #[schema(value_type = Option<String>, format = Password, max_length = 1024)]
    password: Option<SecretString>,
    /// Turning TLS off removes all certificates.
    tls: Option<bool>,
    /// Trusted CA certificates; an empty text selects those of the operating system.
    tls_ca_pem: Option<String>,
    /// The client certificate chain; requires the key. Empty texts remove both.
    tls_certificate_pem: Option<String>,
    #[schema(value_type = Option<String>, format = Password)]
    tls_key_pem: Option<SecretString>,
}

/// The backup policy in the form of DCS. A richer policy is reduced to these fields; `/policy`
/// shows all of it. A disabled plan is kept.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyBody {
    /// Whether the plan is followed; requires all other fields.
    automatic: bool,
    /// Days of the week, 1 for Monday to 7 for Sunday; requires `window`.
    #[schema(example = json!([1, 4]), min_items = 1)]
    days: Option<Vec<i64>>,
    /// The backup window: whole hours, UTC; requires `days`.
    #[schema(example = "00:00-01:00", pattern = "^([01][0-9]|2[0-3]):00-([01][0-9]|2[0-4]):00$")]
    window: Option<String>,
    /// Days of retention.
    #[schema(example = 7, minimum = 1, maximum = 7)]
    save_days: Option<i64>,
}

impl ChangeInstanceBody {
    /// The change, or the invalid field.
    pub(crate) fn change(&self) -> Result<InstanceChange, String> {
        let name = self.name.as_deref().map(str::parse).transpose();
        let description = self.description.as_deref().map(str::parse).transpose();
        let maintenance = self.maintenance.as_deref().map(str::parse).transpose();
        Ok(InstanceChange {
            name: name.map_err(|e: cachevault_domain::InvalidInstanceName| e.to_string())?,
            description: description
                .map_err(|e: cachevault_domain::DescriptionTooLong| e.to_string())?,
            maintenance: maintenance
                .map_err(|e: cachevault_domain::InvalidWindow| format!("`maintenance`: {e}"))?,
            policy: self.policy.as_ref().map(PolicyBody::policy).transpose()?,
            connection: None,
        })
    }

    /// The change of the connection.
    pub(crate) fn connection(self) -> ConnectionChange {
        ConnectionChange {
            host: self.host,
            port: self.port,
            username: self.username,
            password: self.password,
            tls: self.tls,
            tls_ca_pem: self.tls_ca_pem,
            tls_certificate_pem: self.tls_certificate_pem,
            tls_key_pem: self.tls_key_pem,
        }
    }
}

impl PolicyBody {
    fn policy(&self) -> Result<BackupPolicy, String> {
        let plan = match (&self.days, &self.window) {
            (Some(days), Some(window)) => Some(plan(days, window).map_err(|e| e.to_string())?),
            (None, None) => None,
            _ => return Err("invalid plan: expected both `days` and `window`".into()),
        };
        let save_days = self.save_days.map(SaveDays::new).transpose();
        let save_days = save_days.map_err(|e| e.to_string())?;
        match (self.automatic, plan, save_days) {
            (false, plan, save_days) => Ok(BackupPolicy::manual(plan, save_days)),
            (true, Some(plan), Some(days)) => Ok(BackupPolicy::automatic(plan, days)),
            (true, ..) => Err("an automatic policy needs `days`, `window` and `save_days`".into()),
        }
    }
}

pub(super) fn plan(days: &[i64], window: &str) -> Result<WeeklyPlan, InvalidPolicy> {
    let window: HourWindow = window.parse().map_err(|_| InvalidPolicy::Window)?;
    Ok(WeeklyPlan { days: Weekdays::from_numbers(days)?, window })
}

impl From<&StoredPolicy> for PolicyBody {
    fn from(stored: &StoredPolicy) -> Self {
        let plan = stored.policy.weekly_plan();
        Self {
            automatic: stored.policy.is_automatic(),
            days: plan.map(|plan| plan.days.numbers().into_iter().map(i64::from).collect()),
            window: plan.map(|plan| plan.window.to_string()),
            save_days: stored.policy.save_days().map(|days| i64::from(days.get())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_policy_names_the_missing_field() {
        let change = |json: &str| {
            let body: ChangeInstanceBody = serde_json::from_str(json).unwrap();
            body.change()
        };
        let whole =
            r#"{"policy":{"automatic":true,"days":[1],"window":"00:00-01:00","save_days":7}}"#;
        assert!(change(whole).unwrap().policy.unwrap().is_automatic());
        for (json, says) in [
            (r#"{"policy":{"automatic":true}}"#, "needs `days`"),
            (r#"{"policy":{"automatic":false,"days":[1]}}"#, "both `days` and `window`"),
            (r#"{"policy":{"automatic":false,"save_days":8}}"#, "1 to 7 days"),
            (&whole.replace("[1]", "[]"), "at least one day"),
            (&whole.replace("00:00-", "00:30-"), "HH:00-HH:00"),
            (r#"{"maintenance":"all day"}"#, "`maintenance`"),
            (r#"{"name":""}"#, "1 to 64 characters"),
        ] {
            let error = change(json).unwrap_err();
            assert!(error.contains(says), "{json}: {error}");
        }
    }
}

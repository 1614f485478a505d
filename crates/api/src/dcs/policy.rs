//! The backup policy of an instance, in the request and the response format of DCS.

use cachevault_domain::{
    BackupPolicy, HourWindow, ProjectId, SaveDays, StoredPolicy, Weekdays, WeeklyPlan,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};

use super::error::DcsError;
use super::words;

const MANUAL: &str = "manual";
const AUTO: &str = "auto";
const WEEKLY: &str = "weekly";

/// A backup policy in a request.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PolicyWish {
    /// `auto` or `manual`; an empty text means `manual`. v2 requires the field, in v1.0 the default
    /// is `manual`.
    #[schema(example = "auto", pattern = "^(auto|manual|)$", required, nullable = false)]
    backup_type: Option<String>,
    /// Days of retention for the plan's backups; required for `auto`.
    #[schema(example = 1, minimum = 1, maximum = 7)]
    save_days: Option<i64>,
    /// Required for `auto`; with `manual` the plan is stored but not followed.
    periodical_backup_plan: Option<PlanWish>,
}

/// The schedule in a request.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PlanWish {
    /// Whole hours, UTC.
    #[schema(example = "00:00-01:00", pattern = "^([01][0-9]|2[0-3]):00-([01][0-9]|2[0-4]):00$")]
    begin_at: Option<String>,
    #[schema(example = "weekly", pattern = "^weekly$")]
    period_type: Option<String>,
    #[schema(schema_with = days_schema)]
    backup_at: Option<Vec<Day>>,
    /// Obsolete; ignored.
    #[schema(example = "+08:00")]
    #[expect(dead_code, reason = "only the type is checked")]
    timezone_offset: Option<String>,
}

/// A day of the week. The documents use texts in examples and numbers in tables.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Day {
    Number(i64),
    Text(String),
}

fn days_schema() -> Schema {
    let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(7));
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[1-7]$"));
    let day = OneOfBuilder::new().item(number).item(text);
    let days = ArrayBuilder::new().items(day).min_items(Some(1));
    days.description(Some("Days of the week, 1 for Monday to 7 for Sunday, as numbers or texts."))
        .into()
}

impl Day {
    fn number(&self) -> i64 {
        match self {
            Self::Number(number) => *number,
            // Day 0 does not exist, so the text is refused.
            Self::Text(text) => text.parse().unwrap_or(0),
        }
    }
}

impl PolicyWish {
    /// Parses the policy. `default_type` replaces a missing type, where a version allows that.
    pub(crate) fn policy(&self, default_type: Option<&str>) -> Result<BackupPolicy, DcsError> {
        let save_days = self.save_days.map(SaveDays::new).transpose();
        let save_days = save_days.map_err(|_| DcsError::PolicySaveDays)?;
        let plan = self.periodical_backup_plan.as_ref();
        match self.backup_type.as_deref().or(default_type) {
            Some(AUTO) => {
                let plan = plan.ok_or(DcsError::PolicyBackupAt)?.plan()?;
                let save_days = save_days.ok_or(DcsError::PolicySaveDays)?;
                Ok(BackupPolicy::automatic(plan, save_days))
            }
            // One client sends an empty text as the default.
            Some(MANUAL | "") => {
                let plan = plan.filter(|plan| !plan.is_empty()).map(PlanWish::plan).transpose()?;
                Ok(BackupPolicy::manual(plan, save_days))
            }
            _ => Err(DcsError::PolicyBackupType),
        }
    }
}

impl PlanWish {
    fn is_empty(&self) -> bool {
        self.begin_at.is_none() && self.backup_at.as_ref().is_none_or(Vec::is_empty)
    }

    fn plan(&self) -> Result<WeeklyPlan, DcsError> {
        if self.period_type.as_deref() != Some(WEEKLY) {
            return Err(DcsError::PolicyPeriodType);
        }
        let days: Vec<_> = self.backup_at.iter().flatten().map(Day::number).collect();
        let days = Weekdays::from_numbers(&days).map_err(|_| DcsError::PolicyBackupAt)?;
        let window = self.begin_at.as_deref().unwrap_or_default();
        let window: HourWindow = window.parse().map_err(|_| DcsError::PolicyBeginAt)?;
        Ok(WeeklyPlan { days, window })
    }
}

/// A policy in a v1.0 request. One client sends JSON inside a text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum PolicyOrText {
    Policy(PolicyWish),
    Text(String),
}

impl PolicyOrText {
    pub(crate) fn policy(&self) -> Result<BackupPolicy, DcsError> {
        match self {
            Self::Policy(wish) => wish.policy(Some(MANUAL)),
            Self::Text(text) => {
                let wish: PolicyWish =
                    serde_json::from_str(text).map_err(|_| DcsError::MalformedBody)?;
                wish.policy(Some(MANUAL))
            }
        }
    }
}

/// The backup policy of an instance. A richer policy is reduced to the fields of this form.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StoredPolicyBody {
    backup_policy_id: String,
    created_at: String,
    updated_at: String,
    /// The project id.
    tenant_id: String,
    policy: PolicyBody,
}

#[derive(Debug, Serialize, ToSchema)]
struct PolicyBody {
    #[schema(example = "auto")]
    backup_type: &'static str,
    save_days: Option<u8>,
    periodical_backup_plan: Option<PlanBody>,
}

#[derive(Debug, Serialize, ToSchema)]
struct PlanBody {
    #[schema(example = "00:00-01:00")]
    begin_at: String,
    #[schema(example = "weekly")]
    period_type: &'static str,
    #[schema(example = json!([1, 2, 3, 4, 5, 6, 7]))]
    backup_at: Vec<i32>,
    /// Always null.
    timezone_offset: Option<String>,
}

impl StoredPolicyBody {
    pub(crate) fn new(stored: &StoredPolicy, project: &ProjectId) -> Self {
        let plan = |plan: WeeklyPlan| PlanBody {
            begin_at: plan.window.to_string(),
            period_type: WEEKLY,
            backup_at: plan.days.numbers().into_iter().map(i32::from).collect(),
            timezone_offset: None,
        };
        Self {
            backup_policy_id: stored.id.to_string(),
            created_at: words::time(stored.created_at),
            updated_at: words::time(stored.updated_at),
            tenant_id: project.to_string(),
            policy: PolicyBody {
                backup_type: if stored.policy.is_automatic() { AUTO } else { MANUAL },
                save_days: stored.policy.save_days().map(SaveDays::get),
                periodical_backup_plan: stored.policy.weekly_plan().map(plan),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Result<BackupPolicy, DcsError> {
        serde_json::from_str::<PolicyWish>(json).unwrap().policy(None)
    }

    fn auto(save_days: &str, plan: &str) -> Result<BackupPolicy, DcsError> {
        policy(&format!(
            r#"{{"backup_type":"auto"{save_days},"periodical_backup_plan":{{{plan}}}}}"#
        ))
    }

    #[test]
    fn every_bound_has_its_error() {
        const DAYS: &str = r#","save_days":1"#;
        const PLAN: &str = r#""begin_at":"00:00-01:00","period_type":"weekly","backup_at":[1]"#;
        assert!(auto(DAYS, PLAN).unwrap().is_automatic());
        for (save_days, error) in [
            ("", DcsError::PolicySaveDays),
            (r#","save_days":0"#, DcsError::PolicySaveDays),
            (r#","save_days":8"#, DcsError::PolicySaveDays),
        ] {
            assert_eq!(auto(save_days, PLAN), Err(error), "{save_days}");
        }
        for (from, to, error) in [
            ("weekly", "daily", DcsError::PolicyPeriodType),
            ("[1]", "[]", DcsError::PolicyBackupAt),
            ("[1]", "[8]", DcsError::PolicyBackupAt),
            ("[1]", r#"["x"]"#, DcsError::PolicyBackupAt),
            ("00:00-01:00", "00:30-01:30", DcsError::PolicyBeginAt),
            ("00:00-01:00", "", DcsError::PolicyBeginAt),
        ] {
            assert_eq!(auto(DAYS, &PLAN.replace(from, to)), Err(error), "{to}");
        }
        assert_eq!(
            policy(r#"{"backup_type":"auto","save_days":1}"#),
            Err(DcsError::PolicyBackupAt)
        );
        for bad in [r#"{"backup_type":"hourly"}"#, "{}"] {
            assert_eq!(policy(bad), Err(DcsError::PolicyBackupType), "{bad}");
        }
    }

    #[test]
    fn days_are_read_as_texts_and_an_empty_type_is_manual() {
        let wish = r#"{"backup_type":"","save_days":1,"periodical_backup_plan":
            {"begin_at":"00:00-01:00","period_type":"weekly","backup_at":["1",7]}}"#;
        let policy = policy(wish).unwrap();
        assert_eq!(policy.weekly_plan().unwrap().days.numbers(), [1, 7]);
        assert!(!policy.is_automatic());
    }
}

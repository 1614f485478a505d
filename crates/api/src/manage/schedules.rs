//! The complete backup policy of an instance.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use bytes::Bytes;
use cachevault_app::FollowedPolicy;
use cachevault_domain::{
    BackupPolicy, DuePlan, Generations, InvalidSchedule, Keep, KeepDays, MissedWindow, Plan,
    Retention, Schedule, WeeklyPlan, Window, time_zone,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::Error;
use super::instances::parse;
use super::model::named;
use super::parameters::InstancePath;
use super::path::PathId;
use super::{body, settings};
use crate::Api;
use crate::auth::Identity;

/// A backup policy: schedule and retention.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetPolicyBody {
    /// Whether backups are scheduled; `false` keeps the policy for later.
    #[serde(default = "by_default")]
    #[schema(default = true)]
    enabled: bool,
    /// A window on days of the week; either this or `schedule`.
    weekly: Option<WeeklyBody>,
    /// A cron pattern in a time zone; either this or `weekly`.
    schedule: Option<ScheduleBody>,
    keep: KeepBody,
    /// The action for a missed window: `skip` or `catch_up`. The default is the service's setting
    /// `missed_windows`.
    #[schema(pattern = "^(skip|catch_up)$")]
    missed: Option<String>,
}

fn by_default() -> bool {
    true
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WeeklyBody {
    /// Days of the week, 1 for Monday to 7 for Sunday.
    #[schema(example = json!([1, 4]), min_items = 1)]
    days: Vec<i64>,
    /// The backup window: whole hours, UTC; it may span midnight.
    #[schema(example = "22:00-02:00", pattern = "^([01][0-9]|2[0-3]):00-([01][0-9]|2[0-4]):00$")]
    hours: String,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ScheduleBody {
    /// The start of windows as a cron pattern: minute, hour, day of the month, month, day of the
    /// week.
    #[schema(example = "30 2 * * *", min_length = 9, max_length = 128)]
    pattern: String,
    /// The time zone of the pattern, by its IANA name.
    #[serde(default = "utc")]
    #[schema(example = "Europe/Berlin", default = "UTC", max_length = 128)]
    zone: String,
    /// The length of each window.
    #[serde(default = "an_hour")]
    #[schema(default = 60, minimum = 1, maximum = 1440)]
    window_minutes: i64,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn an_hour() -> i64 {
    60
}

/// The retention rules: at least one is required. A backup is kept while any rule keeps it, up to
/// the service's setting `backups_max`.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct KeepBody {
    /// Keep backups of the last days.
    #[schema(example = 7, minimum = 1, maximum = 3650)]
    days: Option<i64>,
    /// Keep the newest backups, up to this number.
    #[schema(example = 3, minimum = 0, maximum = 10000)]
    count: Option<i64>,
    /// Keep the newest backup of each of the last days with backups.
    #[schema(example = 7, minimum = 0, maximum = 10000)]
    daily: Option<i64>,
    /// Keep the newest backup of each of the last weeks, which begin on Monday.
    #[schema(example = 4, minimum = 0, maximum = 10000)]
    weekly: Option<i64>,
    /// Keep the newest backup of each of the last months.
    #[schema(example = 12, minimum = 0, maximum = 10000)]
    monthly: Option<i64>,
    /// Keep the newest backup of each of the last years.
    #[schema(example = 2, minimum = 0, maximum = 10000)]
    yearly: Option<i64>,
    /// The time zone of day boundaries. The default is the zone of the pattern, or UTC.
    #[schema(example = "Europe/Berlin", max_length = 128)]
    zone: Option<String>,
}

/// The backup policy of an instance.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PolicyShown {
    id: String,
    enabled: bool,
    weekly: Option<WeeklyBody>,
    schedule: Option<ScheduleBody>,
    keep: Option<KeepBody>,
    missed: Option<&'static str>,
    created_at: String,
    updated_at: String,
    /// The first window without a backup; null when nothing is scheduled.
    next_window: Option<WindowBody>,
    /// The time at which the backup of that window starts. A new policy starts at once inside an
    /// open window, unless its start is still to come.
    next_start: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct WindowBody {
    #[schema(example = "2026-11-23T01:30:00Z")]
    begin: String,
    /// The end of the window, exclusive.
    #[schema(example = "2026-11-23T03:00:00Z")]
    end: String,
}

impl SetPolicyBody {
    /// The policy, or the invalid field. `now` detects patterns that never match.
    fn policy(&self, now: Timestamp) -> Result<BackupPolicy, String> {
        let plan = match (&self.weekly, &self.schedule) {
            (Some(weekly), None) => Plan::Weekly(weekly.plan()?),
            (None, Some(schedule)) => Plan::Schedule(Box::new(schedule.schedule(now)?)),
            _ => return Err("invalid policy: expected either `weekly` or `schedule`".into()),
        };
        let zone = self.schedule.as_ref().map_or("UTC", |schedule| &schedule.zone);
        let keep = self.keep.keep(zone)?;
        let missed = self.missed.as_deref();
        let missed = named("missed", &MissedWindow::ALL, MissedWindow::as_str, missed)?;
        Ok(BackupPolicy::whole(self.enabled, DuePlan { plan, keep, missed }))
    }
}

impl WeeklyBody {
    fn plan(&self) -> Result<WeeklyPlan, String> {
        settings::plan(&self.days, &self.hours).map_err(|e| format!("`weekly`: {e}"))
    }
}

impl ScheduleBody {
    fn schedule(&self, now: Timestamp) -> Result<Schedule, String> {
        // Longer than every valid length, and safe for the arithmetic.
        let minutes = self.window_minutes.clamp(0, 24 * 60 + 1);
        let length = SignedDuration::from_mins(minutes);
        Schedule::new(&self.pattern, &self.zone, length, now).map_err(|error| {
            let field = match error {
                InvalidSchedule::Pattern(_) | InvalidSchedule::Never => "pattern",
                InvalidSchedule::Zone(_) => "zone",
                InvalidSchedule::Length => "window_minutes",
            };
            format!("`schedule.{field}`: {error}")
        })
    }
}

impl KeepBody {
    fn keep(&self, default_zone: &str) -> Result<Keep, String> {
        let days = self.days.map(KeepDays::new).transpose();
        let days = days.map_err(|e| format!("`keep.days`: {e}"))?;
        let number = |name, number: Option<i64>| {
            u32::try_from(number.unwrap_or(0))
                .map_err(|_| format!("invalid value for `keep.{name}`: expected 0 to 10000"))
        };
        let generations = Generations {
            daily: number("daily", self.daily)?,
            weekly: number("weekly", self.weekly)?,
            monthly: number("monthly", self.monthly)?,
            yearly: number("yearly", self.yearly)?,
        };
        let zone = time_zone(self.zone.as_deref().unwrap_or(default_zone));
        let zone = zone.map_err(|e| format!("`keep.zone`: {e}"))?;
        let rules = Retention { count: number("count", self.count)?, generations, zone };
        Keep::new(days, rules).map_err(|e| format!("`keep`: {e}"))
    }
}

impl From<WeeklyPlan> for WeeklyBody {
    fn from(plan: WeeklyPlan) -> Self {
        let days = plan.days.numbers().into_iter().map(i64::from).collect();
        Self { days, hours: plan.window.to_string() }
    }
}

impl From<&Schedule> for ScheduleBody {
    fn from(schedule: &Schedule) -> Self {
        Self {
            pattern: schedule.pattern().to_owned(),
            zone: schedule.zone().to_owned(),
            window_minutes: schedule.length().as_mins(),
        }
    }
}

impl From<&Keep> for KeepBody {
    fn from(keep: &Keep) -> Self {
        let rules = keep.rules();
        let Generations { daily, weekly, monthly, yearly } = rules.generations;
        Self {
            days: keep.days().map(|days| days.get().into()),
            count: Some(rules.count.into()),
            daily: Some(daily.into()),
            weekly: Some(weekly.into()),
            monthly: Some(monthly.into()),
            yearly: Some(yearly.into()),
            zone: rules.zone.iana_name().map(str::to_owned),
        }
    }
}

impl From<FollowedPolicy> for PolicyShown {
    fn from(FollowedPolicy { stored, next }: FollowedPolicy) -> Self {
        let policy = &stored.policy;
        let window = |Window { begin, end }: Window| WindowBody {
            begin: begin.to_string(),
            end: end.to_string(),
        };
        Self {
            id: stored.id.to_string(),
            enabled: policy.is_automatic(),
            weekly: policy.weekly_plan().map(WeeklyBody::from),
            schedule: policy.schedule().map(ScheduleBody::from),
            keep: policy.keep().map(KeepBody::from),
            missed: policy.missed().map(MissedWindow::as_str),
            created_at: stored.created_at.to_string(),
            updated_at: stored.updated_at.to_string(),
            next_window: next.map(|(next, _)| window(next)),
            next_start: next.map(|(_, start)| start.to_string()),
        }
    }
}

/// Show an instance's backup policy
#[utoipa::path(get, path = "/instances/{instance_id}/policy", operation_id = "ShowBackupPolicy", tag = "Instances",
    params(InstancePath),
    responses((status = 200, body = PolicyShown)))]
pub(super) async fn show(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(instance): PathId,
) -> Result<Json<PolicyShown>, Error> {
    let policy = api.app.get_backup_policy(&identity.caller, parse(&instance)?).await?;
    Ok(Json(policy.into()))
}

/// Set an instance's backup policy
///
/// The new policy replaces the previous one.
#[utoipa::path(put, path = "/instances/{instance_id}/policy", operation_id = "SetBackupPolicy", tag = "Instances",
    params(InstancePath),
    request_body = SetPolicyBody,
    responses((status = 200, body = PolicyShown)))]
pub(super) async fn set(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(instance): PathId,
    body: Bytes,
) -> Result<Json<PolicyShown>, Error> {
    let instance = parse(&instance)?;
    let body: SetPolicyBody = body::parse(&body)?;
    let policy = body.policy(api.app.clock.now()).map_err(Error::BadRequest)?;
    api.app.set_backup_policy(&identity.caller, instance, policy).await?;
    let shown = api.app.get_backup_policy(&identity.caller.for_answer(), instance).await?;
    Ok(Json(shown.into()))
}

/// Remove an instance's backup policy
///
/// Existing backups keep their expiry. Backups that only a count or a generation kept stay until
/// they are deleted or exceed the maximum.
#[utoipa::path(delete, path = "/instances/{instance_id}/policy", operation_id = "RemoveBackupPolicy", tag = "Instances",
    params(InstancePath),
    responses((status = 204, description = "The instance has no backup policy")))]
pub(super) async fn remove(
    State(api): State<Api>,
    Extension(identity): Extension<Identity>,
    PathId(instance): PathId,
) -> Result<StatusCode, Error> {
    api.app.remove_backup_policy(&identity.caller, parse(&instance)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn policy(body: Value) -> Result<BackupPolicy, String> {
        let body: SetPolicyBody = serde_json::from_value(body).unwrap();
        body.policy("2026-11-22T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn invalid_values_are_refused_with_their_field() {
        let good = json!({"schedule": {"pattern": "30 2 * * *"}, "keep": {"days": 1}});
        assert!(policy(good.clone()).unwrap().is_automatic());
        let weekly = json!({"days": [1], "hours": "00:00-01:00"});
        for (field, value, says) in [
            ("schedule", json!(null), "either `weekly` or `schedule`"),
            ("weekly", weekly, "either `weekly` or `schedule`"),
            ("schedule", json!({"pattern": "at night"}), "`schedule.pattern`"),
            ("schedule", json!({"pattern": "0 0 30 2 *"}), "`schedule.pattern`"),
            ("schedule", json!({"pattern": "0 0 * * *", "zone": "Berlin"}), "`schedule.zone`"),
            (
                "schedule",
                json!({"pattern": "0 0 * * *", "window_minutes": 0}),
                "`schedule.window_minutes`",
            ),
            (
                "schedule",
                json!({"pattern": "0 0 * * *", "window_minutes": i64::MAX}),
                "`schedule.window_minutes`",
            ),
            ("keep", json!({}), "keeps nothing"),
            ("keep", json!({"days": 0}), "`keep.days`"),
            ("keep", json!({"days": 3651}), "`keep.days`"),
            ("keep", json!({"count": -1}), "`keep.count`"),
            ("keep", json!({"monthly": 10_001}), "`monthly`"),
            ("keep", json!({"days": 1, "zone": ""}), "`keep.zone`"),
            ("missed", json!("sometimes"), "`missed`"),
        ] {
            let mut body = good.clone();
            body[field] = value;
            let error = policy(body).unwrap_err();
            assert!(error.contains(says), "{field}: {error}");
        }
        let weekly = json!({"weekly": {"days": [8], "hours": "00:00-01:00"}, "keep": {"days": 1}});
        assert!(policy(weekly).unwrap_err().contains("`weekly`"));
    }

    #[test]
    fn retention_days_follow_the_patterns_zone_by_default() {
        let zone_of = |zone: Option<&str>| {
            let schedule = json!({"pattern": "30 2 * * *", "zone": "Europe/Berlin"});
            let policy = policy(json!({"schedule": schedule, "keep": {"daily": 7, "zone": zone}}));
            policy.unwrap().keep().unwrap().rules().zone.clone()
        };
        assert_eq!(zone_of(None).iana_name(), Some("Europe/Berlin"));
        assert_eq!(zone_of(Some("Asia/Tokyo")).iana_name(), Some("Asia/Tokyo"));
    }
}

//! What the owner of an instance says about it: its policy and its tags, in tables of their own.

use cachevault_catalog::CatalogError;
use cachevault_domain::{
    Agenda, BackupPolicy, Generations, HourWindow, InstanceId, InstanceName, InstanceSettings,
    Keep, KeepDays, MissedWindow, Plan, PolicyId, ProjectId, Retention, Schedule, StoredPolicy,
    TAGS_MAX, Tag, TagChange, Weekdays, WeeklyPlan, time_zone,
};
use jiff::{SignedDuration, Timestamp};
use sqlx::SqliteConnection;

use crate::row::RowOf;
use crate::{retention, unavailable};

/// The columns of a [`PolicyRow`].
macro_rules! policy_columns {
    () => {
        "bp.id AS policy_id, bp.is_automatic, bp.save_days, bp.plan_days, bp.plan_begin,
        bp.plan_end, bp.pattern, bp.zone, bp.window_minutes, bp.missed, bp.keep_count,
        bp.keep_daily, bp.keep_weekly, bp.keep_monthly, bp.keep_yearly, bp.keep_zone,
        bp.created_at AS policy_created_at, bp.updated_at AS policy_updated_at"
    };
}
pub(crate) use policy_columns;

/// The columns of [`SettingsRow`] that are not the instance's (`i`) own. Tags are joined by control
/// characters, which none of them holds.
pub(crate) const COLUMNS: &str = concat!(
    policy_columns!(),
    ", (SELECT group_concat(t.key || char(30) || t.value, char(31))
        FROM instance_tags t WHERE t.instance_id = i.id) AS tags"
);

#[derive(sqlx::FromRow)]
pub(crate) struct SettingsRow {
    description: String,
    maintain_begin: i64,
    maintain_end: i64,
    #[sqlx(flatten)]
    policy: PolicyRow,
    tags: Option<String>,
}

#[derive(sqlx::FromRow)]
pub(crate) struct PolicyRow {
    policy_id: Option<String>,
    is_automatic: Option<bool>,
    save_days: Option<i64>,
    plan_days: Option<i64>,
    plan_begin: Option<i64>,
    plan_end: Option<i64>,
    pattern: Option<String>,
    zone: Option<String>,
    window_minutes: Option<i64>,
    missed: Option<String>,
    keep_count: Option<i64>,
    keep_daily: Option<i64>,
    keep_weekly: Option<i64>,
    keep_monthly: Option<i64>,
    keep_yearly: Option<i64>,
    keep_zone: Option<String>,
    policy_created_at: Option<i64>,
    policy_updated_at: Option<i64>,
}

impl SettingsRow {
    pub(crate) fn settings(&self, row: &RowOf<'_>) -> Result<InstanceSettings, CatalogError> {
        Ok(InstanceSettings {
            description: row.parse(&self.description)?,
            maintenance: window(row, self.maintain_begin, self.maintain_end)?,
            policy: self.policy.stored(row)?,
            tags: tags(row, self.tags.as_deref())?,
        })
    }
}

impl PolicyRow {
    pub(crate) fn stored(&self, row: &RowOf<'_>) -> Result<Option<StoredPolicy>, CatalogError> {
        let id = row.parse_if(self.policy_id.as_deref())?;
        let created_at = row.moment_if(self.policy_created_at)?;
        let updated_at = row.moment_if(self.policy_updated_at)?;
        // All of one row, or none where there is no such row.
        let (Some(id), Some(created_at), Some(updated_at)) = (id, created_at, updated_at) else {
            return Ok(None);
        };
        Ok(Some(StoredPolicy { id, policy: self.policy(row)?, created_at, updated_at }))
    }

    fn policy(&self, row: &RowOf<'_>) -> Result<BackupPolicy, CatalogError> {
        let missed = self.missed.as_deref();
        let missed = missed
            .map(|word| row.named(&MissedWindow::ALL, MissedWindow::as_str, word))
            .transpose()?;
        let is_automatic = self.is_automatic == Some(true);
        BackupPolicy::stored(is_automatic, self.plan(row)?, self.keep(row)?, missed)
            .ok_or_else(|| row.corrupt("an automatic policy without its plan"))
    }

    fn plan(&self, row: &RowOf<'_>) -> Result<Option<Plan>, CatalogError> {
        if let (Some(pattern), Some(zone), Some(minutes)) =
            (&self.pattern, &self.zone, self.window_minutes)
        {
            let length = SignedDuration::from_mins(minutes);
            let schedule = Schedule::known(pattern, zone, length).map_err(|e| row.corrupt(e))?;
            return Ok(Some(Plan::Schedule(Box::new(schedule))));
        }
        let (Some(days), Some(begin), Some(end)) = (self.plan_days, self.plan_begin, self.plan_end)
        else {
            return Ok(None);
        };
        let days = Weekdays::from_bits(row.number(days)?).map_err(|e| row.corrupt(e))?;
        Ok(Some(Plan::Weekly(WeeklyPlan { days, window: window(row, begin, end)? })))
    }

    fn keep(&self, row: &RowOf<'_>) -> Result<Option<Keep>, CatalogError> {
        let days = self.save_days.map(KeepDays::new).transpose().map_err(|e| row.corrupt(e))?;
        let number = |number: Option<i64>| row.number(number.unwrap_or(0));
        let generations = Generations {
            daily: number(self.keep_daily)?,
            weekly: number(self.keep_weekly)?,
            monthly: number(self.keep_monthly)?,
            yearly: number(self.keep_yearly)?,
        };
        let zone = self.keep_zone.as_deref().unwrap_or("UTC");
        let zone = time_zone(zone).map_err(|e| row.corrupt(e))?;
        let rules = Retention { count: number(self.keep_count)?, generations, zone };
        if days.is_none() && !rules.counts() {
            return Ok(None);
        }
        Keep::new(days, rules).map(Some).map_err(|e| row.corrupt(e))
    }
}

fn window(row: &RowOf<'_>, begin: i64, end: i64) -> Result<HourWindow, CatalogError> {
    HourWindow::new(row.number(begin)?, row.number(end)?).map_err(|e| row.corrupt(e))
}

fn tags(row: &RowOf<'_>, joined: Option<&str>) -> Result<Vec<Tag>, CatalogError> {
    let tag = |text: &str| {
        let (key, value) = text.split_once('\u{1e}').unwrap_or((text, ""));
        Tag::new(key, value).map_err(|e| row.corrupt(e))
    };
    let mut tags = joined.map(|joined| joined.split('\u{1f}').map(tag).collect()).transpose()?;
    let tags: &mut Vec<Tag> = tags.get_or_insert_default();
    tags.sort();
    Ok(std::mem::take(tags))
}

/// Writes all settings of an instance that has none yet.
pub(crate) async fn insert(
    tx: &mut SqliteConnection,
    id: InstanceId,
    settings: &InstanceSettings,
) -> Result<(), CatalogError> {
    set_description(&mut *tx, id, settings.description.as_str()).await?;
    set_maintenance(&mut *tx, id, settings.maintenance).await?;
    if let Some(policy) = &settings.policy {
        put_policy(&mut *tx, id, policy).await?;
    }
    change_tags(tx, id, &TagChange::Add(settings.tags.clone())).await
}

pub(crate) async fn set_name(
    tx: &mut SqliteConnection,
    (project, id): (&ProjectId, InstanceId),
    name: &InstanceName,
) -> Result<(), CatalogError> {
    let updated = sqlx::query(
        "UPDATE instances SET name = ?1 WHERE id = ?2 AND NOT EXISTS (
             SELECT 1 FROM instances
             WHERE name = ?1 AND id <> ?2 AND project_id = ?3 AND removed_at IS NULL)",
    )
    .bind(name.as_str())
    .bind(id.to_string())
    .bind(project.as_str())
    .execute(tx)
    .await
    .map_err(unavailable)?;
    if updated.rows_affected() == 0 { Err(CatalogError::Taken("instance name")) } else { Ok(()) }
}

pub(crate) async fn set_description(
    tx: &mut SqliteConnection,
    id: InstanceId,
    text: &str,
) -> Result<(), CatalogError> {
    let update = sqlx::query("UPDATE instances SET description = ? WHERE id = ?");
    update.bind(text).bind(id.to_string()).execute(tx).await.map(drop).map_err(unavailable)
}

/// Records the moment of a change of the settings.
pub(crate) async fn note_change(
    tx: &mut SqliteConnection,
    id: InstanceId,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let update = sqlx::query("UPDATE instances SET changed_at = ? WHERE id = ?");
    let update = update.bind(now.as_microsecond()).bind(id.to_string());
    update.execute(tx).await.map(drop).map_err(unavailable)
}

pub(crate) async fn set_maintenance(
    tx: &mut SqliteConnection,
    id: InstanceId,
    window: HourWindow,
) -> Result<(), CatalogError> {
    sqlx::query("UPDATE instances SET maintain_begin = ?, maintain_end = ? WHERE id = ?")
        .bind(i64::from(window.begin()))
        .bind(i64::from(window.end()))
        .bind(id.to_string())
        .execute(tx)
        .await
        .map(drop)
        .map_err(unavailable)
}

/// The policy of an instance, if it has one.
pub(crate) async fn find_policy(
    tx: &mut SqliteConnection,
    id: InstanceId,
) -> Result<Option<StoredPolicy>, CatalogError> {
    let key = id.to_string();
    let row: Option<PolicyRow> = sqlx::query_as(concat!(
        "SELECT ",
        policy_columns!(),
        " FROM backup_policies bp WHERE bp.instance_id = ?"
    ))
    .bind(&key)
    .fetch_optional(tx)
    .await
    .map_err(unavailable)?;
    let of_row = RowOf { table: "backup_policies", key: &key };
    Ok(row.map(|row| row.stored(&of_row)).transpose()?.flatten())
}

/// Makes `next` follow on what there is; `policy_id` names the first.
pub(crate) async fn change_policy(
    tx: &mut SqliteConnection,
    id: InstanceId,
    next: BackupPolicy,
    policy_id: PolicyId,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let stored = match find_policy(&mut *tx, id).await? {
        None => StoredPolicy { id: policy_id, policy: next, created_at: now, updated_at: now },
        Some(stored) => {
            StoredPolicy { policy: stored.policy.changed_to(next), updated_at: now, ..stored }
        }
    };
    put_policy(&mut *tx, id, &stored).await?;
    // Other rules may keep less.
    retention::look_at(tx, &id.to_string(), now).await
}

async fn put_policy(
    tx: &mut SqliteConnection,
    id: InstanceId,
    stored: &StoredPolicy,
) -> Result<(), CatalogError> {
    let policy = &stored.policy;
    let (weekly, schedule) = (policy.weekly_plan(), policy.schedule());
    let by_time = Retention::by_time();
    let rules = policy.keep().map_or(&by_time, Keep::rules);
    let agenda = policy.due_plan().map(|due| Agenda::first(&due.plan, id, stored.updated_at));
    let window = agenda.and_then(|agenda| agenda.window);
    let micros = |moment: Timestamp| moment.as_microsecond();
    sqlx::query(
        "INSERT OR REPLACE INTO backup_policies (instance_id, id, is_automatic, save_days,
             plan_days, plan_begin, plan_end, pattern, zone, window_minutes, missed, keep_count,
             keep_daily, keep_weekly, keep_monthly, keep_yearly, keep_zone, created_at, updated_at,
             window_begin, window_end, next_at, decided_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id.to_string())
    .bind(stored.id.to_string())
    .bind(policy.is_automatic())
    .bind(policy.keep().and_then(Keep::days).map(|days| i64::from(days.get())))
    .bind(weekly.map(|plan| i64::from(plan.days.bits())))
    .bind(weekly.map(|plan| i64::from(plan.window.begin())))
    .bind(weekly.map(|plan| i64::from(plan.window.end())))
    .bind(schedule.map(|schedule| schedule.pattern()))
    .bind(schedule.map(|schedule| schedule.zone()))
    .bind(schedule.map(|schedule| schedule.length().as_mins()))
    .bind(policy.missed().map(MissedWindow::as_str))
    .bind(i64::from(rules.count))
    .bind(i64::from(rules.generations.daily))
    .bind(i64::from(rules.generations.weekly))
    .bind(i64::from(rules.generations.monthly))
    .bind(i64::from(rules.generations.yearly))
    .bind(rules.zone.iana_name().unwrap_or("UTC"))
    .bind(micros(stored.created_at))
    .bind(micros(stored.updated_at))
    .bind(window.map(|window| micros(window.begin)))
    .bind(window.map(|window| micros(window.end)))
    .bind(agenda.map_or(0, |agenda| micros(agenda.next_at)))
    .bind(agenda.map_or(0, |agenda| micros(agenda.decided_at)))
    .execute(tx)
    .await
    .map(drop)
    .map_err(unavailable)
}

/// Takes the policy of an instance away. Whether it had one.
pub(crate) async fn remove_policy(
    tx: &mut SqliteConnection,
    id: InstanceId,
) -> Result<bool, CatalogError> {
    let delete = sqlx::query("DELETE FROM backup_policies WHERE instance_id = ?");
    let deleted = delete.bind(id.to_string()).execute(tx).await.map_err(unavailable)?;
    Ok(deleted.rows_affected() > 0)
}

pub(crate) async fn change_tags(
    tx: &mut SqliteConnection,
    id: InstanceId,
    change: &TagChange,
) -> Result<(), CatalogError> {
    match change {
        TagChange::Add(tags) => {
            for tag in tags {
                add_tag(&mut *tx, id, tag).await?;
            }
        }
        TagChange::Remove(tags) => {
            for (key, value) in tags {
                remove_tag(&mut *tx, id, key, value.as_deref()).await?;
            }
        }
    }
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM instance_tags WHERE instance_id = ?")
        .bind(id.to_string())
        .fetch_one(tx)
        .await
        .map_err(unavailable)?;
    if count.unsigned_abs() > TAGS_MAX as u64 { Err(CatalogError::TooManyTags) } else { Ok(()) }
}

async fn add_tag(tx: &mut SqliteConnection, id: InstanceId, tag: &Tag) -> Result<(), CatalogError> {
    sqlx::query("INSERT OR REPLACE INTO instance_tags (instance_id, key, value) VALUES (?, ?, ?)")
        .bind(id.to_string())
        .bind(tag.key())
        .bind(tag.value())
        .execute(tx)
        .await
        .map(drop)
        .map_err(unavailable)
}

async fn remove_tag(
    tx: &mut SqliteConnection,
    id: InstanceId,
    key: &str,
    value: Option<&str>,
) -> Result<(), CatalogError> {
    sqlx::query("DELETE FROM instance_tags WHERE instance_id = ? AND key = ? AND value = coalesce(?, value)")
        .bind(id.to_string())
        .bind(key)
        .bind(value)
        .execute(tx)
        .await
        .map(drop)
        .map_err(unavailable)
}

/// Forgets the policy and the tags of an instance that goes.
pub(crate) async fn forget(tx: &mut SqliteConnection, id: InstanceId) -> Result<(), CatalogError> {
    remove_policy(&mut *tx, id).await?;
    let delete = sqlx::query("DELETE FROM instance_tags WHERE instance_id = ?");
    delete.bind(id.to_string()).execute(tx).await.map(drop).map_err(unavailable)
}

//! What the owner of an instance says about it: its policy and its tags, in tables of their own.

use cachevault_catalog::CatalogError;
use cachevault_domain::{
    Agenda, BackupPolicy, HourWindow, InstanceId, InstanceName, InstanceSettings, PolicyId,
    ProjectId, SaveDays, StoredPolicy, TAGS_MAX, Tag, TagChange, Weekdays, WeeklyPlan,
};
use jiff::Timestamp;
use sqlx::SqliteConnection;

use crate::row::RowOf;
use crate::unavailable;

/// The columns of [`SettingsRow`] that are not the instance's (`i`) own. Tags are joined by control
/// characters, which none of them holds.
pub(crate) const COLUMNS: &str =
    "bp.id AS policy_id, bp.is_automatic, bp.save_days, bp.plan_days, bp.plan_begin, bp.plan_end,
    bp.created_at AS policy_created_at, bp.updated_at AS policy_updated_at,
    (SELECT group_concat(t.key || char(30) || t.value, char(31))
     FROM instance_tags t WHERE t.instance_id = i.id) AS tags";

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
        let save_days = self.save_days.map(SaveDays::new).transpose();
        let save_days = save_days.map_err(|e| row.corrupt(e))?;
        let plan = match (self.plan_days, self.plan_begin, self.plan_end) {
            (Some(days), Some(begin), Some(end)) => Some(WeeklyPlan {
                days: Weekdays::from_bits(row.number(days)?).map_err(|e| row.corrupt(e))?,
                window: window(row, begin, end)?,
            }),
            _ => None,
        };
        match (self.is_automatic == Some(true), plan, save_days) {
            (true, Some(plan), Some(days)) => Ok(BackupPolicy::automatic(plan, days)),
            (true, ..) => Err(row.corrupt("an automatic policy without its plan")),
            (false, plan, save_days) => Ok(BackupPolicy::manual(plan, save_days)),
        }
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

/// Makes `next` follow on what there is; `policy_id` names the first.
pub(crate) async fn change_policy(
    tx: &mut SqliteConnection,
    id: InstanceId,
    next: BackupPolicy,
    policy_id: PolicyId,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let key = id.to_string();
    let row: Option<PolicyRow> = sqlx::query_as(
        "SELECT bp.id AS policy_id, bp.is_automatic, bp.save_days, bp.plan_days, bp.plan_begin,
             bp.plan_end, bp.created_at AS policy_created_at, bp.updated_at AS policy_updated_at
         FROM backup_policies bp WHERE bp.instance_id = ?",
    )
    .bind(&key)
    .fetch_optional(&mut *tx)
    .await
    .map_err(unavailable)?;
    let of_row = RowOf { table: "backup_policies", key: &key };
    let stored = row.map(|row| row.stored(&of_row)).transpose()?.flatten();
    let stored = match stored {
        None => StoredPolicy { id: policy_id, policy: next, created_at: now, updated_at: now },
        Some(stored) => {
            StoredPolicy { policy: stored.policy.changed_to(next), updated_at: now, ..stored }
        }
    };
    put_policy(tx, id, &stored).await
}

async fn put_policy(
    tx: &mut SqliteConnection,
    id: InstanceId,
    stored: &StoredPolicy,
) -> Result<(), CatalogError> {
    let plan = stored.policy.plan();
    let due_plan = stored.policy.due_plan();
    let agenda = due_plan.map(|(plan, _)| Agenda::first(&plan, id, stored.updated_at));
    let window = agenda.and_then(|agenda| agenda.window);
    let micros = |moment: Timestamp| moment.as_microsecond();
    sqlx::query(
        "INSERT OR REPLACE INTO backup_policies (instance_id, id, is_automatic, save_days,
             plan_days, plan_begin, plan_end, created_at, updated_at, window_begin, window_end,
             next_at, decided_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id.to_string())
    .bind(stored.id.to_string())
    .bind(stored.policy.is_automatic())
    .bind(stored.policy.save_days().map(|days| i64::from(days.get())))
    .bind(plan.map(|plan| i64::from(plan.days.bits())))
    .bind(plan.map(|plan| i64::from(plan.window.begin())))
    .bind(plan.map(|plan| i64::from(plan.window.end())))
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
    for delete in [
        "DELETE FROM backup_policies WHERE instance_id = ?",
        "DELETE FROM instance_tags WHERE instance_id = ?",
    ] {
        let query = sqlx::query(delete).bind(id.to_string());
        query.execute(&mut *tx).await.map_err(unavailable)?;
    }
    Ok(())
}

//! Policies that are due, and what follows of it.

use async_trait::async_trait;
use cachevault_catalog::{
    CatalogError, DuePolicy, NewScheduledBackup, ScheduleCatalog, Turn, Turned,
};
use cachevault_domain::{
    Agenda, BackupState, EventKind, Failure, FailureCode, InstanceId, JobKind, Outcome, Tried,
    Window,
};
use jiff::Timestamp;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use crate::jobs::{insert_job, refuse_busy};
use crate::row::RowOf;
use crate::settings::{PolicyRow, policy_columns};
use crate::{SqliteCatalog, backups, events, unavailable};

/// Selects what is due; what it depends on follows.
const DUE: &str = concat!(
    "SELECT i.project_id, bp.instance_id, bp.window_begin, bp.window_end, bp.next_at,
        bp.decided_at, ",
    policy_columns!(),
    " FROM backup_policies bp JOIN instances i ON i.id = bp.instance_id
    WHERE bp.is_automatic = 1 AND "
);
const BY_TIME: &str = "bp.next_at <= ?1 AND bp.decided_at <= ?1 ORDER BY bp.next_at LIMIT ?2";
const BY_WRONG_CLOCK: &str = "bp.decided_at > ?1 ORDER BY bp.decided_at LIMIT ?2";

#[derive(sqlx::FromRow)]
struct DueRow {
    project_id: String,
    instance_id: String,
    window_begin: Option<i64>,
    window_end: Option<i64>,
    next_at: i64,
    decided_at: i64,
    #[sqlx(flatten)]
    policy: PolicyRow,
}

impl DueRow {
    async fn read(self, tx: &mut SqliteConnection) -> Result<DuePolicy, CatalogError> {
        let row = RowOf { table: "backup_policies", key: &self.instance_id };
        let stored = self.policy.stored(&row)?;
        let due_plan = stored.and_then(|stored| stored.policy.due_plan());
        let says = due_plan.ok_or_else(|| row.corrupt("it is not automatic"))?;
        let window = match (row.moment_if(self.window_begin)?, row.moment_if(self.window_end)?) {
            (Some(begin), Some(end)) => Some(Window { begin, end }),
            _ => None,
        };
        let instance = row.parse(&self.instance_id)?;
        let tried = match window {
            Some(window) => tried(tx, instance, window).await?,
            None => Tried::NOTHING,
        };
        let agenda = Agenda {
            window,
            next_at: row.moment(self.next_at)?,
            decided_at: row.moment(self.decided_at)?,
        };
        let project = row.parse(&self.project_id)?;
        Ok(DuePolicy { project, instance, says, agenda, tried })
    }
}

/// What was tried in the window of an instance and the others of its day.
async fn tried(
    tx: &mut SqliteConnection,
    instance: InstanceId,
    window: Window,
) -> Result<Tried, CatalogError> {
    let (begin, end) = Tried::day_of(window);
    let rows: Vec<(i64, String, bool, bool)> = sqlx::query_as(
        "SELECT window_begin, state, stored_attempt IS NOT NULL, cancelled_at IS NOT NULL FROM backups
         WHERE instance_id = ? AND window_begin >= ? AND window_begin < ?",
    )
    .bind(instance.to_string())
    .bind(begin.as_microsecond())
    .bind(end.as_microsecond())
    .fetch_all(tx)
    .await
    .map_err(unavailable)?;
    let key = instance.to_string();
    let row = RowOf { table: "backups", key: &key };
    let one = |(begin, state, succeeded, cancelled): (i64, String, bool, bool)| {
        let state = row.named(&BackupState::ALL, BackupState::as_str, &state)?;
        let outcome = match (state.is_settled(), succeeded) {
            (false, _) => Outcome::Open,
            (true, true) => Outcome::Succeeded,
            (true, false) if cancelled => Outcome::Cancelled,
            (true, false) => Outcome::Failed,
        };
        Ok((row.moment(begin)?, outcome))
    };
    let tries = rows.into_iter().map(one).collect::<Result<Vec<_>, CatalogError>>()?;
    Ok(Tried::of(window, &tries))
}

/// Makes `then` the agenda of a policy. Whether it was where it was expected.
async fn advance(
    tx: &mut SqliteConnection,
    due: &DuePolicy,
    then: &Agenda,
) -> Result<bool, CatalogError> {
    let micros = |moment: Timestamp| moment.as_microsecond();
    let updated = sqlx::query(
        "UPDATE backup_policies SET window_begin = ?, window_end = ?, next_at = ?, decided_at = ?
         WHERE instance_id = ? AND is_automatic = 1 AND next_at = ? AND decided_at = ?
             AND window_begin IS ?",
    )
    .bind(then.window.map(|window| micros(window.begin)))
    .bind(then.window.map(|window| micros(window.end)))
    .bind(micros(then.next_at))
    .bind(micros(then.decided_at))
    .bind(due.instance.to_string())
    .bind(micros(due.agenda.next_at))
    .bind(micros(due.agenda.decided_at))
    .bind(due.agenda.window.map(|window| micros(window.begin)))
    .execute(tx)
    .await
    .map_err(unavailable)?;
    Ok(updated.rows_affected() > 0)
}

async fn insert(
    tx: &mut SqliteConnection,
    wish: &NewScheduledBackup,
    failure: Option<(EventKind, &Failure)>,
) -> Result<(), CatalogError> {
    let NewScheduledBackup { backup, window, keep_until } = wish;
    backups::insert(&mut *tx, backup).await?;
    sqlx::query("UPDATE backups SET period = ?, window_begin = ?, keep_until = ? WHERE id = ?")
        .bind(window.to_string())
        .bind(window.begin.as_microsecond())
        .bind(keep_until.map(Timestamp::as_microsecond))
        .bind(backup.id.to_string())
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
    match failure {
        Some((kind, failure)) => {
            backups::fail_as(tx, kind, backup.id, failure, backup.created_at).await
        }
        None => {
            let what = (EventKind::BackupRequested, None);
            events::note_backup(&mut *tx, backup.id, what, backup.created_at).await?;
            let of = (&backup.project, backup.instance, backup.id);
            insert_job(tx, backup.job, JobKind::Capture, of, backup.created_at).await
        }
    }
}

#[async_trait]
impl ScheduleCatalog for SqliteCatalog {
    async fn due_policies(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<DuePolicy>, CatalogError> {
        let mut tx = self.read().await?;
        let mut due = Vec::new();
        for which in [BY_WRONG_CLOCK, BY_TIME] {
            let rows: Vec<DueRow> = QueryBuilder::<Sqlite>::new(DUE)
                .push(which)
                .build_query_as()
                .bind(now.as_microsecond())
                .bind(i64::from(limit))
                .fetch_all(&mut *tx)
                .await
                .map_err(unavailable)?;
            for row in rows {
                due.push(row.read(&mut tx).await?);
            }
        }
        due.truncate(limit as usize);
        Ok(due)
    }

    async fn turn_policy(
        &self,
        due: &DuePolicy,
        turn: &Turn,
        then: &Agenda,
    ) -> Result<Turned, CatalogError> {
        let mut tx = self.write().await?;
        if !advance(&mut tx, due, then).await? {
            return Ok(Turned::Superseded);
        }
        let turned = match turn {
            Turn::Rest => Turned::Done,
            Turn::Miss(wish, failure) => {
                insert(&mut tx, wish, Some((EventKind::WindowMissed, failure))).await?;
                Turned::Done
            }
            Turn::Begin(wish) => match refuse_busy(&mut tx, due.instance).await {
                Ok(()) => {
                    insert(&mut tx, wish, None).await?;
                    Turned::Done
                }
                Err(CatalogError::Busy(kind)) => {
                    let reason = CatalogError::Busy(kind).to_string();
                    let failure = Failure { code: FailureCode::InstanceBusy, reason };
                    insert(&mut tx, wish, Some((EventKind::BackupFailed, &failure))).await?;
                    Turned::Busy(kind)
                }
                Err(error) => return Err(error),
            },
        };
        self.commit_telling(tx).await?;
        if matches!((turn, turned), (Turn::Begin(_), Turned::Done)) {
            self.job_queued(JobKind::Capture).notify_one();
        }
        Ok(turned)
    }
}

/// How SQLite goes about a query.
#[cfg(test)]
pub(crate) async fn plan_of(catalog: &SqliteCatalog, query: &str) -> String {
    let rows: Vec<(i64, i64, i64, String)> =
        sqlx::query_as(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}")))
            .fetch_all(&catalog.readers)
            .await
            .unwrap();
    rows.into_iter().map(|(.., detail)| detail + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_due_is_found_by_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = SqliteCatalog::open(&folder.path().join("catalog.sqlite")).await.unwrap();
        for (which, index) in [
            (BY_TIME, "USING INDEX policies_due (next_at<?)"),
            (BY_WRONG_CLOCK, "USING INDEX policies_decided (decided_at>?)"),
        ] {
            let plan = plan_of(&catalog, &format!("{DUE}{which}")).await;
            assert!(plan.contains(index), "{plan}");
            assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{plan}");
        }
    }
}

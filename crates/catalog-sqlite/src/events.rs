//! What has happened. The `note_` functions are called beside each change of a state, in its
//! transaction; [`SqliteCatalog::commit_telling`] then wakes who waits for events.

use async_trait::async_trait;
use cachevault_catalog::{CatalogError, EventCatalog};
use cachevault_domain::{
    BackupId, EVENT_DETAIL_CHARS_MAX, Event, EventFilter, EventId, EventKind, EventPage,
    InstanceId, JobId, ProjectId,
};
use jiff::Timestamp;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, Transaction};

use crate::row::{RowOf, signed};
use crate::{SqliteCatalog, unavailable};

/// Selects events of a project; which, follows.
pub(crate) const SELECT: &str = "SELECT e.*, i.name AS instance_name
    FROM events e LEFT JOIN instances i ON i.id = e.instance_id WHERE ";

#[derive(sqlx::FromRow)]
pub(crate) struct EventRow {
    id: i64,
    at: i64,
    project_id: String,
    instance_id: Option<String>,
    instance_name: Option<String>,
    kind: String,
    backup_id: Option<String>,
    restore_id: Option<String>,
    detail: Option<String>,
}

impl TryFrom<EventRow> for Event {
    type Error = CatalogError;

    fn try_from(columns: EventRow) -> Result<Self, CatalogError> {
        let key = columns.id.to_string();
        let row = RowOf { table: "events", key: &key };
        Ok(Self {
            id: EventId::new(row.number(columns.id)?),
            at: row.moment(columns.at)?,
            project: row.parse(&columns.project_id)?,
            instance: row.parse_if(columns.instance_id.as_deref())?,
            instance_name: row.parse_if(columns.instance_name.as_deref())?,
            kind: row.parse(&columns.kind)?,
            backup: row.parse_if(columns.backup_id.as_deref())?,
            restore: row.parse_if(columns.restore_id.as_deref())?,
            detail: columns.detail,
        })
    }
}

fn shortened(detail: Option<&str>) -> Option<String> {
    detail.map(|text| text.chars().take(EVENT_DETAIL_CHARS_MAX).collect())
}

/// Notes an event of which `select` gives project, instance, backup and restore, at the most once.
async fn note(
    tx: &mut SqliteConnection,
    select: &'static str,
    key: String,
    (kind, detail): (EventKind, Option<&str>),
    now: Timestamp,
) -> Result<(), CatalogError> {
    QueryBuilder::<Sqlite>::new(
        "INSERT INTO events (project_id, instance_id, backup_id, restore_id, kind, detail, at) SELECT ",
    )
    .push(select)
    .build()
    .bind(key)
    .bind(kind.as_str())
    .bind(shortened(detail))
    .bind(now.as_microsecond())
    .execute(tx)
    .await
    .map(drop)
    .map_err(unavailable)
}

/// Notes what has happened to an instance.
pub(crate) async fn note_instance(
    tx: &mut SqliteConnection,
    instance: InstanceId,
    what: (EventKind, Option<&str>),
    now: Timestamp,
) -> Result<(), CatalogError> {
    const OF: &str = "project_id, id, NULL, NULL, ?2, ?3, ?4 FROM instances WHERE id = ?1";
    note(tx, OF, instance.to_string(), what, now).await
}

/// Notes what has happened to a backup.
pub(crate) async fn note_backup(
    tx: &mut SqliteConnection,
    backup: BackupId,
    what: (EventKind, Option<&str>),
    now: Timestamp,
) -> Result<(), CatalogError> {
    const OF: &str = "project_id, instance_id, id, NULL, ?2, ?3, ?4 FROM backups WHERE id = ?1";
    note(tx, OF, backup.to_string(), what, now).await
}

/// Notes what has happened to the restore that a job does.
pub(crate) async fn note_restore(
    tx: &mut SqliteConnection,
    job: JobId,
    what: (EventKind, Option<&str>),
    now: Timestamp,
) -> Result<(), CatalogError> {
    const OF: &str =
        "project_id, instance_id, backup_id, id, ?2, ?3, ?4 FROM restores WHERE job_id = ?1";
    note(tx, OF, job.to_string(), what, now).await
}

/// The newest event there ever was.
pub(crate) async fn newest(tx: &mut SqliteConnection) -> Result<EventId, CatalogError> {
    let seq: Option<i64> =
        sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
            .fetch_optional(tx)
            .await
            .map_err(unavailable)?;
    Ok(EventId::new(seq.unwrap_or(0).unsigned_abs()))
}

fn selected(project: &ProjectId, filter: &EventFilter, limit: u32) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(SELECT);
    query.push("e.project_id = ").push_bind(project.as_str().to_owned());
    if let Some(instance) = filter.instance {
        // The index of the instance is the narrower one: the plus keeps the other from being taken.
        query = QueryBuilder::new(SELECT);
        query.push("+e.project_id = ").push_bind(project.as_str().to_owned());
        query.push(" AND e.instance_id = ").push_bind(instance.to_string());
    }
    query.push(" AND e.id > ").push_bind(signed(filter.after.get()));
    if let Some(before) = filter.before {
        query.push(" AND e.id < ").push_bind(signed(before.get()));
    }
    query.push(if filter.newest_first { " ORDER BY e.id DESC" } else { " ORDER BY e.id" });
    query.push(" LIMIT ").push_bind(i64::from(limit));
    query
}

#[async_trait]
impl EventCatalog for SqliteCatalog {
    async fn list_events(
        &self,
        project: &ProjectId,
        filter: &EventFilter,
        limit: u32,
    ) -> Result<EventPage, CatalogError> {
        let mut tx = self.read().await?;
        let newest = newest(&mut tx).await?;
        let rows: Vec<EventRow> = selected(project, filter, limit)
            .build_query_as()
            .fetch_all(&mut *tx)
            .await
            .map_err(unavailable)?;
        let items = rows.into_iter().map(Event::try_from).collect::<Result<_, _>>()?;
        Ok(EventPage { items, newest })
    }

    async fn record_service_event(
        &self,
        kind: EventKind,
        detail: Option<&str>,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        sqlx::query(
            "INSERT INTO events (project_id, kind, detail, at)
             SELECT id, ?, ?, ? FROM projects WHERE enabled = 1",
        )
        .bind(kind.as_str())
        .bind(shortened(detail))
        .bind(now.as_microsecond())
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
        self.commit_telling(tx).await
    }

    async fn newest_service_event(
        &self,
        kinds: [EventKind; 2],
    ) -> Result<Option<EventKind>, CatalogError> {
        let found: Option<String> = sqlx::query_scalar(
            "SELECT kind FROM events WHERE instance_id IS NULL AND kind IN (?, ?)
             ORDER BY id DESC LIMIT 1",
        )
        .bind(kinds[0].as_str())
        .bind(kinds[1].as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(unavailable)?;
        Ok(found.and_then(|found| kinds.into_iter().find(|kind| kind.as_str() == found)))
    }

    async fn drop_events(&self, before: Timestamp, limit: u32) -> Result<u64, CatalogError> {
        let mut tx = self.write().await?;
        let dropped = sqlx::query(
            "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at < ? ORDER BY at LIMIT ?)",
        )
        .bind(before.as_microsecond())
        .bind(i64::from(limit))
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)?;
        Ok(dropped.rows_affected())
    }

    async fn wait_for_event(&self, after: EventId) -> EventId {
        let mut newest = self.newest_event.subscribe();
        // It fails only where the sender is gone, which lives as long as this.
        newest.wait_for(|newest| *newest > after).await.map_or(after, |newest| *newest)
    }
}

impl SqliteCatalog {
    /// Commits what may have noted events, and wakes who waits for them.
    pub(crate) async fn commit_telling(
        &self,
        mut tx: Transaction<'static, Sqlite>,
    ) -> Result<(), CatalogError> {
        let newest = newest(&mut tx).await?;
        tx.commit().await.map_err(unavailable)?;
        self.newest_event.send_if_modified(|known| {
            let is_newer = newest > *known;
            *known = newest.max(*known);
            is_newer
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedules::plan_of;

    #[tokio::test]
    async fn events_are_found_by_an_index_however_many_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = SqliteCatalog::open(&folder.path().join("catalog.sqlite")).await.unwrap();
        let project = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let instance = "5560df16-cebf-4473-95c4-d1b573c16e79".parse().unwrap();
        for (instance, index) in
            [(None, "events_of_project"), (Some(instance), "events_of_instance")]
        {
            for newest_first in [false, true] {
                let filter = EventFilter { instance, newest_first, ..EventFilter::default() };
                let query = selected(&project, &filter, 10).into_string();
                let plan = plan_of(&catalog, &query).await;
                assert!(plan.contains(index), "{plan}");
                assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{plan}");
            }
        }
    }
}

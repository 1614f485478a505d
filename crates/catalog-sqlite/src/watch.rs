use async_trait::async_trait;
use cachevault_catalog::{CatalogError, OpenJobs, WatchCatalog, WatchedInstance};
use cachevault_domain::{Health, JobKind, Window};

use crate::row::RowOf;
use crate::{SqliteCatalog, unavailable};

const INSTANCES: &str = "SELECT i.project_id, i.id, i.name,
        i.unreachable_because IS NOT NULL AND i.failed_looks > ?1 AS is_down,
        (SELECT b.created_at FROM backups b
         WHERE b.instance_id = i.id AND b.state = 'succeeded' AND b.removal_requested_at IS NULL
             AND b.damage IS NULL AND b.content <> 'opaque'
         ORDER BY b.created_at DESC, b.seq DESC LIMIT 1) AS backup_at,
        (SELECT count(*) FROM backups b INDEXED BY backups_opaque
         WHERE b.instance_id = i.id AND b.state = 'succeeded' AND b.removal_requested_at IS NULL
             AND b.content = 'opaque') AS opaque_backups,
        (SELECT count(*) FROM backups b INDEXED BY backups_held_for_shrunk
         WHERE b.instance_id = i.id AND b.held_for IS NOT NULL) AS held_for_shrunk,
        p.created_at AS proven_backup_at, p.proven_at AS proof_at, w.window_begin, w.window_end
    FROM instances i
    LEFT JOIN backups p ON p.seq = (
        SELECT b.seq FROM backups b
        WHERE b.instance_id = i.id AND b.state = 'succeeded' AND b.removal_requested_at IS NULL
            AND b.proven_at IS NOT NULL
        ORDER BY b.created_at DESC, b.seq DESC LIMIT 1)
    LEFT JOIN backup_policies w ON w.instance_id = i.id AND w.is_automatic = 1
    WHERE i.removed_at IS NULL ORDER BY i.seq LIMIT ?2";

const JOBS: &str = "SELECT kind, count(*) FILTER (WHERE state = 'queued'),
        count(*) FILTER (WHERE state = 'leased'), min(due_at) FILTER (WHERE state = 'queued')
    FROM jobs INDEXED BY jobs_open WHERE state IN ('queued', 'leased') GROUP BY kind";

#[derive(sqlx::FromRow)]
struct WatchedRow {
    project_id: String,
    id: String,
    name: String,
    is_down: bool,
    backup_at: Option<i64>,
    proven_backup_at: Option<i64>,
    proof_at: Option<i64>,
    opaque_backups: i64,
    held_for_shrunk: i64,
    window_begin: Option<i64>,
    window_end: Option<i64>,
}

impl TryFrom<WatchedRow> for WatchedInstance {
    type Error = CatalogError;

    fn try_from(columns: WatchedRow) -> Result<Self, CatalogError> {
        let row = RowOf { table: "instances", key: &columns.id };
        let (begin, end) =
            (row.moment_if(columns.window_begin)?, row.moment_if(columns.window_end)?);
        Ok(Self {
            project: row.parse(&columns.project_id)?,
            id: row.parse(&columns.id)?,
            name: row.parse(&columns.name)?,
            is_down: columns.is_down,
            backup_at: row.moment_if(columns.backup_at)?,
            proven_backup_at: row.moment_if(columns.proven_backup_at)?,
            proof_at: row.moment_if(columns.proof_at)?,
            opaque_backups: row.number(columns.opaque_backups)?,
            held_for_shrunk: row.number(columns.held_for_shrunk)?,
            window: begin.zip(end).map(|(begin, end)| Window { begin, end }),
        })
    }
}

#[async_trait]
impl WatchCatalog for SqliteCatalog {
    async fn watched_instances(&self, limit: u32) -> Result<Vec<WatchedInstance>, CatalogError> {
        let rows: Vec<WatchedRow> = sqlx::query_as(INSTANCES)
            .bind(i64::from(Health::LOOKS_MISSED_MAX))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await
            .map_err(unavailable)?;
        rows.into_iter().map(WatchedInstance::try_from).collect()
    }

    async fn open_jobs(&self) -> Result<Vec<OpenJobs>, CatalogError> {
        let rows: Vec<(String, i64, i64, Option<i64>)> =
            sqlx::query_as(JOBS).fetch_all(&self.readers).await.map_err(unavailable)?;
        let of_kind = |kind: JobKind| {
            let found = rows.iter().find(|(name, ..)| name == kind.as_str());
            let (waiting, running, since) = found
                .map_or((0, 0, None), |(_, waiting, running, since)| (*waiting, *running, *since));
            let row = RowOf { table: "jobs", key: kind.as_str() };
            Ok(OpenJobs {
                kind,
                waiting: row.number(waiting)?,
                running: row.number(running)?,
                waiting_since: row.moment_if(since)?,
            })
        };
        JobKind::ALL.into_iter().map(of_kind).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedules::plan_of;

    #[tokio::test]
    async fn a_scrape_reads_what_it_shows_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = SqliteCatalog::open(&folder.path().join("catalog.sqlite")).await.unwrap();
        let plan = plan_of(&catalog, INSTANCES).await;
        for index in [
            "backups_restorable",
            "backups_proven",
            "COVERING INDEX backups_opaque",
            "backups_held_for_shrunk",
        ] {
            assert!(plan.contains(index), "{plan}");
        }
        assert!(!plan.contains("SCAN b") && !plan.contains("TEMP B-TREE"), "{plan}");
        let plan = plan_of(&catalog, JOBS).await;
        assert!(plan.contains("COVERING INDEX jobs_open"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
}

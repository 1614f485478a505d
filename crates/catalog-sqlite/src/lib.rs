//! The catalog in an SQLite file.
//!
//! One connection writes, several read; WAL mode lets them not wait for each other. Every commit
//! reaches the disk before it is answered (`synchronous = FULL`). Writing transactions begin as
//! writers (`BEGIN IMMEDIATE`), so what they read cannot change before they write.
//!
//! A transaction that cannot be ended, as on a full disk, costs its connection: the pool replaces a
//! connection that is still in a transaction before the next caller gets it.
//!
//! No business rule lives here: what may follow what is asked of `domain`.

mod audit;
mod backups;
mod checks;
mod credentials;
mod drills;
mod events;
mod hosts;
mod instances;
mod jobs;
mod listing;
mod policies;
mod projects;
mod readings;
mod restores;
mod retention;
mod row;
mod schedules;
mod settings;
mod stores;
mod tokens;
mod users;
mod watch;
mod webhooks;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cachevault_catalog::CatalogError;
use cachevault_domain::{EventId, JobKind};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, Sqlite, Transaction};
use tokio::sync::Notify;
use tokio::sync::watch::Sender;

const READERS: u32 = 4;
/// How long a statement waits for another process, such as a backup tool with the file open.
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// A catalog in an SQLite file.
#[derive(Debug)]
pub struct SqliteCatalog {
    writer: SqlitePool,
    readers: SqlitePool,
    capture_queued: Notify,
    removal_queued: Notify,
    restore_queued: Notify,
    drill_queued: Notify,
    ended_readings: readings::Ended,
    /// The newest event that was recorded here.
    newest_event: Sender<EventId>,
}

impl SqliteCatalog {
    /// Opens the file, making it where it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// [`CatalogError::Unavailable`] when it cannot be opened or migrated.
    pub async fn open(path: &Path) -> Result<Self, CatalogError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // What is removed is overwritten: it may have named keys of somebody's data.
            .pragma("secure_delete", "ON")
            .busy_timeout(BUSY_WAIT);
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .idle_timeout(None)
                .max_lifetime(None)
                .before_acquire(|connection, _| {
                    let is_usable = !connection.is_in_transaction();
                    if !is_usable {
                        tracing::warn!(
                            "replacing a catalog connection: its transaction did not end"
                        );
                    }
                    Box::pin(async move { Ok(is_usable) })
                })
        };
        let writer = pool(1).connect_with(options.clone()).await.map_err(unavailable)?;
        sqlx::migrate!().run(&writer).await.map_err(unavailable)?;
        // Nor does the log of a process that was killed keep what the file holds no longer.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&writer)
            .await
            .map_err(unavailable)?;
        let readers =
            pool(READERS).connect_with(options.read_only(true)).await.map_err(unavailable)?;
        Ok(Self {
            writer,
            readers,
            capture_queued: Notify::new(),
            removal_queued: Notify::new(),
            restore_queued: Notify::new(),
            drill_queued: Notify::new(),
            ended_readings: readings::Ended::default(),
            newest_event: Sender::new(EventId::ZERO),
        })
    }

    /// Closes all connections; the log is written back into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Lets a commit fail once, behind as many others as said, as on a full disk; tells whether it
    /// has. For tests of everything above.
    ///
    /// # Errors
    /// [`CatalogError::Unavailable`] when the writing connection cannot be had.
    pub async fn fail_commit(&self, after: u32) -> Result<Arc<AtomicBool>, CatalogError> {
        let has_failed = Arc::new(AtomicBool::new(false));
        let (told, mut left) = (has_failed.clone(), after);
        let mut writer = self.writer.acquire().await.map_err(unavailable)?;
        writer.lock_handle().await.map_err(unavailable)?.set_commit_hook(move || {
            if told.load(Ordering::SeqCst) {
                return true;
            }
            let (now, fails) = (left.saturating_sub(1), left == 0);
            left = now;
            told.store(fails, Ordering::SeqCst);
            !fails
        });
        Ok(has_failed)
    }

    fn job_queued(&self, kind: JobKind) -> &Notify {
        match kind {
            JobKind::Capture => &self.capture_queued,
            JobKind::Remove => &self.removal_queued,
            JobKind::Restore => &self.restore_queued,
            JobKind::Drill => &self.drill_queued,
        }
    }

    /// A transaction that may write.
    async fn write(&self) -> Result<Transaction<'static, Sqlite>, CatalogError> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable)
    }

    /// A transaction that sees one moment.
    async fn read(&self) -> Result<Transaction<'static, Sqlite>, CatalogError> {
        self.readers.begin().await.map_err(unavailable)
    }
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> CatalogError {
    CatalogError::Unavailable(Box::new(error))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use cachevault_catalog::{AuditCatalog, conformance};
    use cachevault_domain::{
        AuditFilter, AuditResult, Entropy, NewAuditRecord, ProjectId, RequestId,
    };
    use jiff::Timestamp;

    use super::*;

    /// Room for some dozens of calls beside what a new catalog takes.
    const PAGES_LEFT: i64 = 16;

    #[derive(Debug)]
    struct Numbered(u16);

    impl Entropy for Numbered {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0);
            bytes[..2].copy_from_slice(&self.0.to_be_bytes());
        }
    }

    fn project() -> ProjectId {
        "0123456789abcdef0123456789abcdef".parse().unwrap()
    }

    fn call(number: u16) -> NewAuditRecord {
        NewAuditRecord {
            request: RequestId::mint(&Numbered(number)),
            project: Some(project()),
            access_key: None,
            user: None,
            address: Some(Ipv4Addr::LOCALHOST.into()),
            operation: "POST /".to_owned(),
            resource: "x".repeat(256),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    /// Lets the writing connection run out of room, as if the disk were full: SQLite answers
    /// `SQLITE_FULL` and rolls the transaction back itself.
    async fn fill(catalog: &SqliteCatalog) -> Vec<RequestId> {
        let mut connection = catalog.writer.acquire().await.unwrap();
        let pages: i64 =
            sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut *connection).await.unwrap();
        let limit = format!("PRAGMA max_page_count = {}", pages + PAGES_LEFT);
        sqlx::query(sqlx::AssertSqlSafe(limit)).execute(&mut *connection).await.unwrap();
        drop(connection);
        let mut recorded = Vec::new();
        for number in 0.. {
            let call = call(number);
            match catalog.begin_audit(&call).await {
                Ok(()) => recorded.push(call.request),
                Err(error) => {
                    let CatalogError::Unavailable(error) = error else { panic!("{error}") };
                    assert!(error.to_string().contains("full"), "{error}");
                    break;
                }
            }
        }
        recorded
    }

    async fn listed(catalog: &SqliteCatalog) -> Vec<RequestId> {
        let all = catalog.list_audit(&project(), &AuditFilter::default(), u32::MAX).await.unwrap();
        all.into_iter().map(|record| record.call.request).collect()
    }

    #[tokio::test]
    async fn a_full_disk_costs_the_writer_one_transaction() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = SqliteCatalog::open(&folder.path().join("catalog.sqlite")).await.unwrap();
        let mut recorded = fill(&catalog).await;
        assert!(recorded.len() > 10, "{}", recorded.len());
        let next = call(60_000);
        catalog.begin_audit(&next).await.unwrap();
        let answered = AuditResult::new(200, None, Timestamp::UNIX_EPOCH);
        catalog.end_audit(&next.request, &answered).await.unwrap();
        recorded.push(next.request);
        let mut listed = listed(&catalog).await;
        listed.sort();
        recorded.sort();
        assert_eq!(listed, recorded);
        conformance::a_project_is_created_once(&catalog).await;
        let sound: String =
            sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&catalog.readers).await.unwrap();
        assert_eq!(sound, "ok");
    }

    #[tokio::test]
    async fn a_rollback_that_fails_costs_the_writer_one_transaction() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = SqliteCatalog::open(&folder.path().join("catalog.sqlite")).await.unwrap();
        let mut tx = catalog.write().await.unwrap();
        // SQLite has ended the transaction, and sqlx does not know.
        sqlx::raw_sql("ROLLBACK").execute(&mut *tx).await.unwrap();
        assert!(tx.rollback().await.is_err());
        conformance::a_project_is_created_once(&catalog).await;
    }
}

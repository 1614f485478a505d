//! The catalog in an SQLite file.
//!
//! One connection writes, several read; WAL mode lets them not wait for each other. Every commit
//! reaches the disk before it is answered (`synchronous = FULL`). Writing transactions begin as
//! writers (`BEGIN IMMEDIATE`), so what they read cannot change before they write.
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
mod tokens;
mod users;
mod watch;
mod webhooks;

use std::path::Path;
use std::time::Duration;

use cachevault_catalog::CatalogError;
use cachevault_domain::{EventId, JobKind};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Sqlite, Transaction};
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

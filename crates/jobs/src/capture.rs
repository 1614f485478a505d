//! The job that makes a backup: capture, verify, commit.

use std::time::Duration;

use async_trait::async_trait;
use cachevault_app::AppError;
use cachevault_catalog::CatalogError;
use cachevault_domain::{
    Backup, ContentState, Failure, FailureCode, Instance, JobKind, Lease, Progress, RdbDialect,
    StoredFiles, Target, Trigger, with_sources,
};
use cachevault_engine::{
    CaptureError, CaptureRequest, Meter, MeterReading, capture, verify_artifact,
};
use cachevault_store::{
    ArtifactEntry, ArtifactKey, AttemptKey, BackupKey, ContentEntry, MANIFEST_VERSION, Manifest,
    RdbEntry, StoreError,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::step::{Step, StepContext, StepError, output, store_failed};
use crate::worker::JobSettings;

pub(crate) const STEPS: [&dyn Step; 3] = [&Capture, &Verify, &Commit];

const REPORT_EVERY: Duration = Duration::from_millis(500);
/// The only shard of a standalone instance.
pub(crate) const SHARD: u16 = 0;

/// What the capture left in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Captured {
    pub(crate) attempt: u32,
    /// Where the instance was reached then: it may be elsewhere before the manifest is written.
    #[serde(default)]
    pub(crate) address: Option<String>,
    pub(crate) started_at: Timestamp,
    pub(crate) completed_at: Timestamp,
    pub(crate) entry: ArtifactEntry,
}

pub(crate) struct Capture;
struct Verify;
struct Commit;

impl StepContext<'_> {
    pub(crate) fn captured(&self) -> Result<Captured, StepError> {
        self.output(Capture.name())
    }

    pub(crate) fn backup_key(&self) -> BackupKey {
        let Lease { project, instance, backup, .. } = self.lease;
        BackupKey { project: project.clone(), instance: *instance, backup: *backup }
    }

    pub(crate) fn attempt_key(&self, attempt: u32) -> AttemptKey {
        self.backup_key().attempt(attempt)
    }

    pub(crate) async fn report(&self, reading: &MeterReading) -> Result<(), StepError> {
        let MeterReading { received_bytes, progress, phase } = reading;
        let (catalog, lease) = (&self.app.catalog, self.lease);
        let reported = match lease.kind {
            JobKind::Restore => catalog.report_restore(lease, *progress, phase).await,
            _ => catalog.report_progress(lease, *progress, *received_bytes, phase).await,
        };
        match reported {
            Err(CatalogError::LostLease) => Err(StepError::Stopped),
            // Progress is news, not a fact: a catalog that cannot take it now gets it later.
            _ => Ok(()),
        }
    }

    /// Reports what the meter shows until `work` has ended. When the lease is lost, `break_off`
    /// tells the work to end, and its own end is waited for: it leaves nothing half done.
    pub(crate) async fn reporting<T>(
        &self,
        meter: &Meter,
        break_off: &CancellationToken,
        work: impl Future<Output = T>,
    ) -> Result<T, StepError> {
        let reporting = async {
            loop {
                if let Err(stopped) = self.report(&meter.read()).await {
                    return stopped;
                }
                tokio::time::sleep(REPORT_EVERY).await;
            }
        };
        tokio::pin!(work);
        tokio::select! {
            done = &mut work => Ok(done),
            stopped = reporting => {
                break_off.cancel();
                let _ = work.await;
                Err(stopped)
            }
        }
    }

    /// Captures an instance into an artifact.
    pub(crate) async fn capture(
        &self,
        instance: &Instance,
        dialect: RdbDialect,
        prefer_replica: bool,
        key: &ArtifactKey,
    ) -> Result<ArtifactEntry, StepError> {
        let app = self.app;
        let target = self.target(instance).await?;
        let request = CaptureRequest {
            target: &target,
            prefer_replica,
            gate: self.gate,
            dialect,
            as_of: app.clock.now(),
            zstd_level: self.settings.zstd_level,
            earlier_bytes: app.catalog.last_size(instance.id).await.map_err(catalog_failed)?,
            limits: self.settings.capture,
        };
        let (meter, break_off) = (Meter::default(), self.cancel.child_token());
        let capturing = capture(request, &*app.store, key, &meter, &break_off);
        let entry = self.reporting(&meter, &break_off, capturing).await?;
        let entry = entry.map_err(|error| judge(&error))?;
        self.report(&meter.read()).await?;
        Ok(entry)
    }

    /// How to reach an instance, with its secrets opened.
    pub(crate) async fn target(&self, instance: &Instance) -> Result<Target, StepError> {
        self.app.open_connection(instance, None).await.map_err(|error| match error {
            AppError::CatalogFailed(error) => catalog_failed(error),
            other => StepError::Fail(Failure {
                code: FailureCode::ToolFailed,
                reason: other.to_string(),
            }),
        })
    }

    /// The backup and its instance, as they are recorded.
    async fn subject(&self) -> Result<(Backup, Instance), StepError> {
        let catalog = &self.app.catalog;
        let backup = catalog
            .find_backup(&self.lease.project, self.lease.backup)
            .await
            .map_err(catalog_failed)?;
        let instance = catalog
            .find_instance(&self.lease.project, self.lease.instance)
            .await
            .map_err(catalog_failed)?;
        backup.zip(instance).ok_or_else(|| {
            StepError::Fail(Failure {
                code: FailureCode::ToolFailed,
                reason: "the instance was removed".into(),
            })
        })
    }
}

#[async_trait]
impl Step for Capture {
    fn name(&self) -> &'static str {
        "capture"
    }

    fn limit(&self, settings: &JobSettings) -> Duration {
        // What its own limit does not bound: removing what is there, and the end of what it stores.
        settings.capture.total.saturating_add(settings.commit)
    }

    async fn run(&self, context: &StepContext<'_>) -> Result<String, StepError> {
        // What an attempt left that died before it could log or undo this step.
        remove_attempts(context, &context.backup_key()).await.map_err(|e| store_failed(&e))?;
        let (app, lease) = (context.app, context.lease);
        let started_at = app.clock.now();
        app.catalog.start_backup(lease, started_at).await.map_err(catalog_failed)?;
        context.require_disk().await?;
        let (backup, instance) = context.subject().await?;
        let key = context.attempt_key(lease.attempt).artifact(SHARD);
        // A replica that failed once is not tried again: the primary decides.
        let prefer_replica = context.settings.prefer_replica && lease.failures == 0;
        let entry = context.capture(&instance, backup.dialect, prefer_replica, &key).await?;
        Ok(output(&Captured {
            attempt: lease.attempt,
            address: Some(instance.connection.address.to_string()),
            started_at,
            completed_at: app.clock.now(),
            entry,
        }))
    }

    fn leaves_only_files(&self) -> bool {
        true
    }

    async fn undo(&self, context: &StepContext<'_>) -> Result<(), String> {
        let removed = remove_attempts(context, &context.backup_key()).await;
        removed.map_err(|error| with_sources(&error))
    }
}

/// Removes what all attempts so far have left of a backup.
pub(crate) async fn remove_attempts(
    context: &StepContext<'_>,
    key: &BackupKey,
) -> Result<(), StoreError> {
    for attempt in 1..=context.lease.attempt {
        context.app.store.remove_attempt(&key.attempt(attempt)).await?;
    }
    Ok(())
}

fn judge(error: &CaptureError) -> StepError {
    if let CaptureError::Cancelled = error {
        return StepError::Stopped;
    }
    let failure = Failure { code: error.failure_code(), reason: with_sources(error) };
    if error.may_pass() { StepError::Retry(failure) } else { StepError::Fail(failure) }
}

#[async_trait]
impl Step for Verify {
    fn name(&self) -> &'static str {
        "verify"
    }

    fn limit(&self, settings: &JobSettings) -> Duration {
        settings.verify
    }

    async fn run(&self, context: &StepContext<'_>) -> Result<String, StepError> {
        let captured = context.captured()?;
        // The attempt that captured has proved what is stored: a folder reads it back while it is
        // written, a bucket checks each part by its signed SHA-256 (ADR 0009).
        if captured.attempt == context.lease.attempt {
            return Ok(output(&()));
        }
        let key = context.attempt_key(captured.attempt).artifact(SHARD);
        let reading = MeterReading {
            received_bytes: captured.entry.rdb.size_bytes,
            progress: Progress::ALMOST,
            phase: "verifying".to_owned(),
        };
        context.report(&reading).await?;
        let verified = tokio::select! {
            verified = verify_artifact(&*context.app.store, &key, &captured.entry) => verified,
            () = context.cancel.cancelled() => return Err(StepError::Stopped),
        };
        match verified {
            Ok(()) => Ok(output(&())),
            // Also when the artifact is gone: then only a new one helps.
            Err(error) if error.may_pass() => Err(StepError::Restart(with_sources(&error))),
            Err(error) => Err(StepError::Fail(Failure {
                code: error.failure_code(),
                reason: with_sources(&error),
            })),
        }
    }

    fn leaves_only_files(&self) -> bool {
        true
    }

    async fn undo(&self, _: &StepContext<'_>) -> Result<(), String> {
        Ok(())
    }
}

#[async_trait]
impl Step for Commit {
    fn name(&self) -> &'static str {
        "commit"
    }

    fn limit(&self, settings: &JobSettings) -> Duration {
        settings.commit
    }

    async fn run(&self, context: &StepContext<'_>) -> Result<String, StepError> {
        let captured = context.captured()?;
        let (backup, instance) = context.subject().await?;
        let key = context.attempt_key(captured.attempt);
        let committed =
            context.app.store.commit(&key, &manifest(&backup, &instance, captured)).await;
        committed.map(|()| output(&())).map_err(|error| store_failed(&error))
    }

    fn leaves_only_files(&self) -> bool {
        true
    }

    async fn undo(&self, context: &StepContext<'_>) -> Result<(), String> {
        let Ok(captured) = context.captured() else { return Ok(()) };
        let retracted = context.app.store.retract(&context.attempt_key(captured.attempt)).await;
        retracted.map_err(|error| with_sources(&error))
    }
}

pub(crate) fn manifest(backup: &Backup, instance: &Instance, captured: Captured) -> Manifest {
    Manifest {
        version: MANIFEST_VERSION,
        backup_id: backup.id.to_string(),
        project_id: backup.project.to_string(),
        instance_id: backup.instance.to_string(),
        instance_name: instance.name.to_string(),
        instance_address: Some(
            captured.address.unwrap_or_else(|| instance.connection.address.to_string()),
        ),
        dialect: Some(backup.dialect.as_str().to_owned()),
        trigger: match backup.trigger {
            Trigger::Manual => "manual",
            Trigger::Automatic => "auto",
            Trigger::Safety => "safety",
        }
        .to_owned(),
        note: backup.note.as_ref().map(|note| note.as_str().to_owned()),
        window: backup.window.clone(),
        keep_until: backup.keep_until,
        created_at: backup.created_at,
        started_at: captured.started_at,
        completed_at: captured.completed_at,
        artifacts: vec![captured.entry],
    }
}

/// Whether the content of a captured RDB was verified.
pub(crate) fn content_state(rdb: &RdbEntry) -> ContentState {
    match &rdb.content {
        None => ContentState::Unknown,
        Some(ContentEntry::Verified { .. }) => ContentState::Verified,
        Some(ContentEntry::Opaque { .. }) => ContentState::Opaque,
    }
}

/// What a capture has stored, for its record.
pub(crate) fn stored_files(attempt: u32, rdb: &RdbEntry) -> StoredFiles {
    let opaque_because = match &rdb.content {
        Some(ContentEntry::Opaque { reason, .. }) => Some(reason.clone()),
        _ => None,
    };
    let (size_bytes, content) = (rdb.size_bytes, content_state(rdb));
    StoredFiles { attempt, size_bytes, content, opaque_because, keys: rdb.key_count() }
}

pub(crate) fn catalog_failed(error: CatalogError) -> StepError {
    match error {
        CatalogError::LostLease => StepError::Stopped,
        other => StepError::Retry(Failure {
            code: FailureCode::ToolFailed,
            reason: with_sources(&other),
        }),
    }
}

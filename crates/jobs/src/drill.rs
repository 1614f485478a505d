//! The job that proves a backup by loading it into a throw-away server.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use cachevault_app::App;
use cachevault_domain::{Failure, FailureCode, with_sources};
use cachevault_engine::{DrillRequest, Meter, Proven, RestoreError, drill};
use serde::{Deserialize, Serialize};

use crate::capture::{SHARD, catalog_failed};
use crate::shutdown::Shutdown;
use crate::step::{Step, StepContext, StepError, output, stored_failed};
use crate::worker::JobSettings;

pub(crate) const STEPS: [&dyn Step; 1] = [&Drill];

/// Backups that a round asks drills for.
const ROUND_MAX: u32 = 16;

/// Where and with what drills are done.
#[derive(Debug, Clone, Default)]
pub struct DrillSettings {
    /// Server binaries to try, paths or names.
    pub servers: Vec<PathBuf>,
    /// Where throw-away servers have their folders.
    pub folder: PathBuf,
}

struct Drill;

/// What a drill has shown.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Drilled {
    pub(crate) server: String,
    keys: u64,
    #[serde(default)]
    pub(crate) uncompared: u64,
}

impl StepContext<'_> {
    pub(crate) fn drilled(&self) -> Result<Drilled, StepError> {
        self.output(Drill.name())
    }
}

#[async_trait]
impl Step for Drill {
    fn name(&self) -> &'static str {
        "drill"
    }

    fn limit(&self, settings: &JobSettings) -> Duration {
        // Each server loads the backup, and is read back.
        settings.restore.total.saturating_mul(2 * settings.drill_servers.max(1))
    }

    async fn run(&self, context: &StepContext<'_>) -> Result<String, StepError> {
        context.require_disk().await?;
        let (app, lease) = (context.app, context.lease);
        let found = app.catalog.find_backup(&lease.project, lease.backup).await;
        let found = found.map_err(catalog_failed)?;
        let backup = found.ok_or_else(no_files)?;
        let manifest = app.find_manifest(&backup).await.map_err(stored_failed)?;
        let attempt = backup.stored_attempt.ok_or_else(no_files)?;
        let key = context.backup_key().attempt(attempt);
        let entry = manifest.artifacts.first().ok_or_else(no_files)?;
        let mut random = [0; 80];
        app.entropy.fill(&mut random);
        let request = DrillRequest {
            store: &*app.store,
            key: &key.artifact(SHARD),
            entry,
            servers: &context.drills.servers,
            folder: &context.drills.folder,
            random,
            gate: context.gate,
            limits: context.settings.restore,
        };
        let meter = Meter::default();
        let proven = drill(request, &meter, context.cancel).await;
        let proven = proven.map_err(|error| match error {
            cachevault_engine::DrillError::Restore(RestoreError::Cancelled) => StepError::Stopped,
            error => StepError::Fail(Failure {
                code: FailureCode::ToolFailed,
                reason: with_sources(&error),
            }),
        })?;
        let Proven { server, keys, uncompared, empty } = proven;
        if empty > 0 {
            tracing::info!(job = %lease.job, backup = %lease.backup, empty, "proven but for keys without elements, which servers leave out");
        }
        Ok(output(&Drilled { server, keys, uncompared }))
    }

    /// A throw-away server is gone with the step.
    async fn undo(&self, _: &StepContext<'_>) -> Result<(), String> {
        Ok(())
    }
}

fn no_files() -> StepError {
    let reason = "the backup has no files to load".to_owned();
    StepError::Fail(Failure { code: FailureCode::SizeUnconfirmed, reason })
}

/// Asks for drills of every instance's newest backup, so that none is unproven for long.
#[derive(Debug)]
pub struct Driller {
    /// The use cases' context.
    pub app: App,
    /// How old the newest proof of an instance's newest backup may become.
    pub every: Duration,
}

impl Driller {
    /// Asks for drills until the soft phase of `shutdown`.
    pub async fn run(&self, shutdown: &Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.soft.cancelled() => return,
                () = tokio::time::sleep(self.every / 10) => {}
            }
            tokio::select! {
                () = shutdown.soft.cancelled() => return,
                () = self.round() => {}
            }
        }
    }

    /// Asks once for every drill that is due.
    pub async fn round(&self) {
        let Ok(before) = self.app.clock.now().checked_sub(self.every) else { return };
        match self.app.request_due_drills(before, ROUND_MAX).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "drills are due"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "drills cannot be asked for");
            }
        }
    }
}

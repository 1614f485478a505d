//! The job that removes a backup's files.

use std::time::Duration;

use async_trait::async_trait;
use cachevault_domain::{Failure, FailureCode, with_sources};

use crate::step::{Step, StepContext, StepError, output};
use crate::worker::JobSettings;

pub(crate) const STEPS: [&dyn Step; 1] = [&Remove];

struct Remove;

#[async_trait]
impl Step for Remove {
    fn name(&self) -> &'static str {
        "remove"
    }

    fn limit(&self, settings: &JobSettings) -> Duration {
        settings.commit
    }

    async fn run(&self, context: &StepContext<'_>) -> Result<String, StepError> {
        let removed = context.app.store.remove_backup(&context.backup_key()).await;
        // Whatever is wrong, the files are still there: only trying again can make it true.
        removed.map(|()| output(&())).map_err(|error| {
            StepError::Retry(Failure {
                code: FailureCode::RemovalFailed,
                reason: with_sources(&error),
            })
        })
    }

    /// What is removed stays removed; the next attempt removes the rest.
    async fn undo(&self, _: &StepContext<'_>) -> Result<(), String> {
        Ok(())
    }
}

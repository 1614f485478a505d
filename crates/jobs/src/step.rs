//! The parts of a job.

use std::time::Duration;

use async_trait::async_trait;
use cachevault_app::{App, StoredError};
use cachevault_domain::{Failure, FailureCode, Lease, with_sources};
use cachevault_engine::{OurAddress, SourceGate, store_failure_code};
use cachevault_store::StoreError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::drill::DrillSettings;
use crate::log::{Logged, StepLog};
use crate::worker::JobSettings;

/// What a step works with.
pub(crate) struct StepContext<'a> {
    pub(crate) app: &'a App,
    pub(crate) settings: &'a JobSettings,
    pub(crate) gate: &'a SourceGate,
    /// Where targets of restores find us.
    pub(crate) ours: &'a OurAddress,
    pub(crate) drills: &'a DrillSettings,
    pub(crate) lease: &'a Lease,
    /// The finished steps.
    pub(crate) outputs: &'a [Logged],
    /// Set when the step has to break off.
    pub(crate) cancel: &'a CancellationToken,
}

impl StepContext<'_> {
    /// The log of the job.
    pub(crate) fn log(&self) -> StepLog<'_> {
        StepLog { app: self.app, lease: self.lease }
    }

    /// Refuses to begin work while a disk of the service is nearly full.
    pub(crate) async fn require_disk(&self) -> Result<(), StepError> {
        self.app.disk.check().await.map_err(|shortage| {
            StepError::Retry(Failure {
                code: FailureCode::SizeUnconfirmed,
                reason: shortage.to_string(),
            })
        })
    }

    /// What the finished step `name` left.
    pub(crate) fn output<T: DeserializeOwned>(&self, name: &str) -> Result<T, StepError> {
        let found = self.outputs.iter().find(|logged| logged.step == name);
        let decoded = found.and_then(|logged| serde_json::from_str(&logged.output).ok());
        // Written by another version of the service, or sealed with a master key that is gone: what
        // it made cannot be gone on with.
        decoded
            .ok_or_else(|| StepError::Restart(format!("the log of step `{name}` cannot be read")))
    }
}

/// Why a step did not finish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StepError {
    /// It may succeed later, with what the earlier steps did.
    Retry(Failure),
    /// It may succeed later, but only from the beginning.
    Restart(String),
    /// It will not succeed.
    Fail(Failure),
    /// It was told to break off.
    Stopped,
}

impl StepError {
    /// Why it did not finish; `None` when it was told to break off.
    pub(crate) fn failure(&self) -> Option<Failure> {
        match self {
            Self::Retry(failure) | Self::Fail(failure) => Some(failure.clone()),
            Self::Restart(reason) => {
                Some(Failure { code: FailureCode::SizeUnconfirmed, reason: reason.clone() })
            }
            Self::Stopped => None,
        }
    }
}

/// A failure as the log writes it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FailureNote {
    code: String,
    reason: String,
}

impl FailureNote {
    pub(crate) fn of(failure: &Failure) -> Self {
        Self { code: failure.code.as_str().to_owned(), reason: failure.reason.clone() }
    }

    /// `None` where another version of the service wrote a code that this one does not know.
    pub(crate) fn into_failure(self) -> Option<Failure> {
        let code = FailureCode::ALL.into_iter().find(|code| code.as_str() == self.code)?;
        Some(Failure { code, reason: self.reason })
    }
}

/// One step: may run twice, and can be undone whether it ran, half ran or did not.
#[async_trait]
pub(crate) trait Step: Send + Sync {
    fn name(&self) -> &'static str;

    /// Longest time that it may take. Most steps end by limits of their own, which say more; this one
    /// ends those that never would.
    fn limit(&self, settings: &JobSettings) -> Duration;

    /// Does the step; returns what the later steps need, as JSON.
    async fn run(&self, context: &StepContext<'_>) -> Result<String, StepError>;

    /// Longest time that [`Step::undo`] may take.
    fn undo_limit(&self, settings: &JobSettings) -> Duration {
        settings.commit
    }

    /// Whether it leaves nothing but files that no record and no manifest makes a backup. What cannot
    /// be removed of them holds up no verdict: the tender removes it later.
    fn leaves_only_files(&self) -> bool {
        false
    }

    /// Removes every trace of it.
    async fn undo(&self, context: &StepContext<'_>) -> Result<(), String>;
}

/// What an error of the store means for a step that can be done again without harm.
pub(crate) fn store_failed(error: &StoreError) -> StepError {
    let failure = Failure { code: store_failure_code(error), reason: with_sources(error) };
    if error.kind.may_pass() { StepError::Retry(failure) } else { StepError::Fail(failure) }
}

/// What it means for a step that a manifest cannot be had. Trying again mends no files.
pub(crate) fn stored_failed(error: StoredError) -> StepError {
    match error {
        StoredError::Damaged(reason) => {
            StepError::Fail(Failure { code: FailureCode::SizeUnconfirmed, reason })
        }
        StoredError::Unavailable(error) => store_failed(&error),
    }
}

/// A step's output as it is logged.
pub(crate) fn output<T: Serialize>(value: &T) -> String {
    // Our own plain structures: there is nothing in them that JSON cannot express.
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

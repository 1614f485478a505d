//! Runs one job under its lease, step by step.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cachevault_app::App;
use cachevault_catalog::CatalogError;
use cachevault_domain::{Failure, FailureCode, JobKind, Lease, Requeue, with_sources};
use cachevault_engine::{OurAddress, SourceGate};
use tokio_util::sync::CancellationToken;

use crate::drill::DrillSettings;
use crate::figures::{AttemptEnd, JobFigures};
use crate::log::{Logged, StepLog};
use crate::step::{FailureNote, Step, StepContext, StepError, output};
use crate::worker::JobSettings;
use crate::{capture, drill, remove, restore};

/// What a test makes happen around a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injected {
    /// Nothing.
    Nothing,
    /// The step runs a second time.
    Repeat,
    /// The step fails after it ran, with an error that may pass.
    Fail,
    /// The step never returns.
    Hang,
    /// The process is gone: nothing is written any more.
    Die,
}

/// Lets a test decide what happens around each step.
pub trait Injection: Send + Sync + fmt::Debug {
    /// Asked after a step ran and before it is logged.
    fn after(&self, step: &str) -> Injected;

    /// Asked after a step was logged; only [`Injected::Die`] means anything here.
    fn after_log(&self, step: &str) -> Injected;
}

/// Runs jobs.
#[derive(Debug, Clone)]
pub struct Runner {
    /// The use cases' context: catalog, store, clock.
    pub app: App,
    /// How jobs are to run.
    pub settings: JobSettings,
    /// Shared by all runners of the process: one capture of a server at a time.
    pub gate: SourceGate,
    /// Where targets of restores find us.
    pub ours: OurAddress,
    /// Where and with what drills are done.
    pub drills: DrillSettings,
    /// What is counted.
    pub figures: JobFigures,
    /// For tests; `None` in production.
    pub injection: Option<Arc<dyn Injection>>,
}

/// Why the steps ended early.
enum End {
    Step(usize, StepError),
    /// A write to the catalog failed.
    Catalog(CatalogError),
    Died,
}

impl Runner {
    /// Runs a claimed job to an end that is recorded: done, failed, or back in the queue. When
    /// the lease is lost nothing more is written.
    pub async fn run(&self, lease: &Lease, stop: &CancellationToken) {
        let began = self.app.clock.now();
        let end = self.run_attempt(lease, stop).await;
        self.figures.attempt_ended(lease.kind, end, self.app.clock.now().duration_since(began));
    }

    async fn run_attempt(&self, lease: &Lease, stop: &CancellationToken) -> AttemptEnd {
        let cancel = stop.child_token();
        let running = self.run_steps(lease, &cancel);
        tokio::pin!(running);
        let outcome = tokio::select! {
            outcome = &mut running => outcome,
            never = self.heed_cancellation(lease, &cancel) => match never {},
            () = self.keep(lease) => {
                tracing::warn!(job = %lease.job, attempt = lease.attempt, "lease lost; breaking off");
                self.figures.lease_lost();
                cancel.cancel();
                let _ = running.await;
                return AttemptEnd::Lost;
            }
        };
        outcome.unwrap_or_else(|error| {
            // The lease runs out and the job is claimed again: nothing is lost by leaving it.
            tracing::error!(job = %lease.job, error = with_sources(&error), "the end of a job could not be recorded");
            AttemptEnd::Lost
        })
    }

    /// Extends the lease again and again; returns only when it is lost.
    async fn keep(&self, lease: &Lease) {
        let mut until = self.settings.lease_end(self.app.clock.now());
        loop {
            let now = self.app.clock.now();
            match self.app.catalog.extend_lease(lease, self.settings.lease_end(now)).await {
                Ok(()) => until = self.settings.lease_end(now),
                Err(CatalogError::LostLease) => return,
                // While the catalog does not answer nobody else can claim the job before its time.
                Err(_) if now >= until => return,
                Err(_) => {}
            }
            tokio::time::sleep(self.settings.lease / 3).await;
        }
    }

    /// Breaks the steps off when somebody wants the backup or the restore to end.
    async fn heed_cancellation(&self, lease: &Lease, cancel: &CancellationToken) -> Infallible {
        loop {
            // What cannot be read now is read the next time; the end of a backup, and a restore before
            // it touches its target, asks in any case.
            if let Ok(Some(wish)) = self.app.catalog.cancellation(lease).await {
                tracing::info!(job = %lease.job, backup = %lease.backup, by = wish.by, "cancelled; breaking off");
                cancel.cancel();
                return std::future::pending().await;
            }
            tokio::time::sleep(self.settings.poll).await;
        }
    }

    async fn run_steps(
        &self,
        lease: &Lease,
        cancel: &CancellationToken,
    ) -> Result<AttemptEnd, CatalogError> {
        let steps: &[&dyn Step] = match lease.kind {
            JobKind::Capture => &capture::STEPS,
            JobKind::Remove => &remove::STEPS,
            JobKind::Restore => &restore::STEPS,
            JobKind::Drill => &drill::STEPS,
        };
        let mut outputs = match self.log(lease).read().await {
            Err(CatalogError::LostLease) => return Ok(AttemptEnd::Lost),
            read => read?,
        };
        let last = steps.len() - 1;
        let too_often = lease.attempt > self.settings.attempts_max;
        let end = if too_often && lease.kind != JobKind::Remove {
            let reason = format!("{} attempts were interrupted", lease.attempt - 1);
            Err(End::Step(last, StepError::Fail(Failure { code: FailureCode::ToolFailed, reason })))
        } else if self.app.catalog.cancellation(lease).await?.is_some() {
            Err(End::Step(last, StepError::Stopped))
        } else {
            self.go_through(steps, lease, &mut outputs, cancel).await
        };
        let context = self.context(lease, &outputs, cancel);
        let end = match end {
            Ok(()) => self.record_done(last, &context).await,
            early => early,
        };
        match end {
            Ok(()) => Ok(AttemptEnd::Done),
            Err(End::Step(at, error)) => self.break_off(steps, at, error, &context).await,
            Err(End::Catalog(CatalogError::LostLease) | End::Died) => Ok(AttemptEnd::Lost),
            Err(End::Catalog(error)) => Err(error),
        }
    }

    fn log<'a>(&'a self, lease: &'a Lease) -> StepLog<'a> {
        StepLog { app: &self.app, lease }
    }

    fn context<'a>(
        &'a self,
        lease: &'a Lease,
        outputs: &'a [Logged],
        cancel: &'a CancellationToken,
    ) -> StepContext<'a> {
        StepContext {
            app: &self.app,
            settings: &self.settings,
            gate: &self.gate,
            ours: &self.ours,
            drills: &self.drills,
            lease,
            outputs,
            cancel,
        }
    }

    async fn go_through(
        &self,
        steps: &[&dyn Step],
        lease: &Lease,
        outputs: &mut Vec<Logged>,
        cancel: &CancellationToken,
    ) -> Result<(), End> {
        for (at, step) in steps.iter().enumerate() {
            if outputs.iter().any(|logged| logged.step == step.name()) {
                continue;
            }
            if cancel.is_cancelled() {
                return Err(End::Step(at, StepError::Stopped));
            }
            tracing::debug!(job = %lease.job, attempt = lease.attempt, step = step.name(), "step begins");
            let context = self.context(lease, outputs, cancel);
            let output = self.run_step(at, *step, &context).await?;
            self.log(lease).add(step.name(), &output).await.map_err(End::Catalog)?;
            if self.injected(|injection| injection.after_log(step.name())) == Injected::Die {
                return Err(End::Died);
            }
            outputs.push(Logged { step: step.name().to_owned(), output });
        }
        Ok(())
    }

    /// Runs a step, for as long as it may take, or as a lease lasts once it was told to break off.
    async fn run_step(
        &self,
        at: usize,
        step: &dyn Step,
        context: &StepContext<'_>,
    ) -> Result<String, End> {
        let failed = |error| End::Step(at, error);
        let running = async {
            let output = step.run(context).await.map_err(failed)?;
            match self.injected(|injection| injection.after(step.name())) {
                Injected::Nothing => Ok(output),
                Injected::Repeat => step.run(context).await.map_err(failed),
                Injected::Fail => {
                    let (code, reason) = (FailureCode::ToolFailed, "injected".to_owned());
                    Err(failed(StepError::Retry(Failure { code, reason })))
                }
                Injected::Hang => std::future::pending().await,
                Injected::Die => Err(End::Died),
            }
        };
        let limit = step.limit(&self.settings);
        // Steps break off by themselves, and in order; one that does not is left.
        let left = async {
            context.cancel.cancelled().await;
            tokio::time::sleep(self.settings.lease).await;
        };
        let ended = tokio::select! {
            ended = tokio::time::timeout(limit, running) => ended,
            () = left => return Err(failed(StepError::Stopped)),
        };
        ended.unwrap_or_else(|_| {
            let reason = not_done("step", step, limit);
            let failure = Failure { code: FailureCode::TimedOut, reason };
            Err(failed(match context.lease.kind {
                // Files that ought to be gone are tried for ever.
                JobKind::Remove => StepError::Retry(failure),
                _ => StepError::Fail(failure),
            }))
        })
    }

    /// Undoes a step; why not, where that failed or took too long.
    async fn undo(&self, step: &dyn Step, context: &StepContext<'_>) -> Result<(), String> {
        let limit = step.undo_limit(&self.settings);
        let undone = tokio::time::timeout(limit, step.undo(context)).await;
        undone.unwrap_or_else(|_| Err(not_done("undoing of step", step, limit)))
    }

    fn injected(&self, ask: impl FnOnce(&dyn Injection) -> Injected) -> Injected {
        self.injection.as_deref().map_or(Injected::Nothing, ask)
    }

    /// Records that the job is done, after its last step.
    async fn record_done(&self, last: usize, context: &StepContext<'_>) -> Result<(), End> {
        let (catalog, lease, now) = (&self.app.catalog, context.lease, self.app.clock.now());
        let broken = |error| End::Step(last, error);
        let recorded = match lease.kind {
            JobKind::Remove => catalog.finish_removal(lease, now).await,
            JobKind::Capture => {
                let captured = context.captured().map_err(broken)?;
                let (rdb, stored) = (captured.entry.rdb.size_bytes, captured.entry.stored_bytes);
                let files = capture::stored_files(captured.attempt, &captured.entry.rdb);
                let recorded =
                    catalog.finish_backup(lease, &files, self.settings.shrink, now).await;
                recorded.inspect(|()| self.figures.captured(rdb, stored))
            }
            JobKind::Drill => {
                let drilled = context.drilled().map_err(broken)?;
                catalog.finish_drill(lease, &drilled.server, drilled.uncompared, now).await
            }
            JobKind::Restore => {
                let outcome = context.restored().map_err(broken)?;
                catalog.finish_restore(lease, &outcome, now).await
            }
        };
        recorded.map_err(|error| match error {
            CatalogError::Cancelled => broken(StepError::Stopped),
            error => End::Catalog(error),
        })?;
        tracing::info!(job = %lease.job, kind = lease.kind.as_str(), backup = %lease.backup, attempt = lease.attempt, "job done");
        Ok(())
    }

    /// Undoes what has to be undone and records why the job did not get done.
    async fn break_off(
        &self,
        steps: &[&dyn Step],
        at: usize,
        error: StepError,
        context: &StepContext<'_>,
    ) -> Result<AttemptEnd, CatalogError> {
        let lease = context.lease;
        // Whoever holds the job now may be working with what would be undone here.
        match self
            .app
            .catalog
            .extend_lease(lease, self.settings.lease_end(self.app.clock.now()))
            .await
        {
            Err(CatalogError::LostLease) => return Ok(AttemptEnd::Lost),
            extended => extended?,
        }
        let cancellation = self.app.catalog.cancellation(lease).await?;
        let is_cancelled = cancellation.is_some();
        let error = match cancellation {
            Some(wish) => StepError::Fail(wish.failure()),
            None => {
                let error = self.final_if_touched(steps[at].name(), error, lease).await?;
                self.note_first_failure(&error, lease).await?;
                error
            }
        };
        let (undo_from, mut verdict) = self.judge(at, error, lease);
        if let (Verdict::GiveUp(failure), false) = (&mut verdict, is_cancelled) {
            let is_touched = lease.kind == JobKind::Restore
                && restore::must_end(steps[at].name(), &self.log(lease).read().await?);
            *failure = self.with_first_reason(failure.clone(), is_touched, lease).await?;
        }
        if let (JobKind::Restore, Verdict::GiveUp(failure)) = (lease.kind, &verdict) {
            tracing::warn!(job = %lease.job, reason = failure.reason, "the restore failed");
            restore::begin_taking_back(self.log(lease), failure).await?;
        }
        for step in steps[undo_from..=at].iter().rev() {
            // The log forgets the step first: a crash in between must not leave an entry whose work
            // is gone, while work without an entry is undone by the next attempt.
            self.log(lease).remove(step.name()).await?;
            if let Err(reason) = self.undo(*step, context).await {
                if lease.kind == JobKind::Restore && lease.attempt > self.settings.attempts_max {
                    // The record will say that what the target holds is uncertain.
                    tracing::error!(job = %lease.job, step = step.name(), reason, "given up putting the old data back");
                    continue;
                }
                if step.leaves_only_files() {
                    tracing::warn!(job = %lease.job, step = step.name(), reason, "left to the tender: files could not be removed");
                    if lease.kind == JobKind::Capture {
                        // What was not done in time may be done late, and must not hit what the next
                        // attempt makes: it begins anew, with keys of its own.
                        for step in steps {
                            self.log(lease).remove(step.name()).await?;
                        }
                        // The others would find the same store, and take as long.
                        break;
                    }
                    continue;
                }
                // What cannot be removed now must not be forgotten: the job stays open for it.
                tracing::warn!(job = %lease.job, step = step.name(), reason, "a step could not be undone");
                let due = self.next_at(lease, u32::MAX).unwrap_or_else(|| self.app.clock.now());
                self.app.catalog.requeue(lease, Requeue::Failed, due, &reason).await?;
                return Ok(AttemptEnd::Retried);
            }
        }
        self.record(lease, verdict).await
    }

    /// Notes why an attempt failed, if none did before.
    async fn note_first_failure(
        &self,
        error: &StepError,
        lease: &Lease,
    ) -> Result<(), CatalogError> {
        match error.failure() {
            // The same again changes nothing.
            Some(failure) if lease.kind != JobKind::Remove => {
                self.log(lease).add(FIRST_FAILURE, &output(&FailureNote::of(&failure))).await
            }
            _ => Ok(()),
        }
    }

    /// The failure with which a job ends, behind the first one that it met: that is what went wrong, and
    /// later ones are often what came of it. Of a restore whose target was touched the code says how it
    /// ended.
    async fn with_first_reason(
        &self,
        last: Failure,
        is_touched: bool,
        lease: &Lease,
    ) -> Result<Failure, CatalogError> {
        let log = self.log(lease).read().await?;
        let first = log.into_iter().find(|logged| logged.step == FIRST_FAILURE);
        let first =
            first.and_then(|logged| serde_json::from_str::<FailureNote>(&logged.output).ok());
        let Some(first) = first.and_then(FailureNote::into_failure) else { return Ok(last) };
        if last.reason.contains(&first.reason) {
            return Ok(last);
        }
        let reason = format!(
            "{}; gave up after {} attempts, the last: {}",
            first.reason, lease.attempt, last.reason
        );
        Ok(Failure { code: if is_touched { last.code } else { first.code }, reason })
    }

    /// From which step on it is undone what was broken off at step `at`, and what comes then.
    fn judge(&self, at: usize, error: StepError, lease: &Lease) -> (usize, Verdict) {
        match error {
            StepError::Stopped => (at, Verdict::PutBack),
            StepError::Retry(failure) => match self.retry_at(lease) {
                Some(due) => (at, Verdict::Later(due, failure.reason)),
                None => (0, Verdict::GiveUp(failure)),
            },
            StepError::Restart(reason) => match self.retry_at(lease) {
                Some(due) => (0, Verdict::Later(due, reason)),
                None => {
                    (0, Verdict::GiveUp(Failure { code: FailureCode::SizeUnconfirmed, reason }))
                }
            },
            StepError::Fail(failure) => (0, Verdict::GiveUp(failure)),
        }
    }

    /// A restore whose target was touched and is taken back is over, whatever broke it off.
    async fn final_if_touched(
        &self,
        step: &str,
        error: StepError,
        lease: &Lease,
    ) -> Result<StepError, CatalogError> {
        if lease.kind != JobKind::Restore
            || !restore::must_end(step, &self.log(lease).read().await?)
        {
            return Ok(error);
        }
        let code = FailureCode::RestoreSyncFailed;
        Ok(match error {
            StepError::Retry(failure) | StepError::Fail(failure) => StepError::Fail(failure),
            StepError::Restart(reason) => StepError::Fail(Failure { code, reason }),
            StepError::Stopped => {
                let reason = "the service was stopped while the target was loading".to_owned();
                StepError::Fail(Failure { code, reason })
            }
        })
    }

    /// When to try again after this attempt failed; `None` when it was the last one.
    fn retry_at(&self, lease: &Lease) -> Option<jiff::Timestamp> {
        let attempts_max = match lease.kind {
            JobKind::Capture | JobKind::Restore | JobKind::Drill => {
                self.settings.backoff.attempts_max
            }
            // Files that ought to be gone are tried for ever.
            JobKind::Remove => u32::MAX,
        };
        self.next_at(lease, attempts_max)
    }

    fn next_at(&self, lease: &Lease, attempts_max: u32) -> Option<jiff::Timestamp> {
        let mut jitter = [0];
        self.app.entropy.fill(&mut jitter);
        let backoff = cachevault_domain::Backoff { attempts_max, ..self.settings.backoff };
        backoff.next_at(lease.failures + 1, self.app.clock.now(), jitter[0])
    }

    async fn record(&self, lease: &Lease, verdict: Verdict) -> Result<AttemptEnd, CatalogError> {
        let (catalog, now) = (&self.app.catalog, self.app.clock.now());
        match verdict {
            Verdict::PutBack => {
                tracing::info!(job = %lease.job, backup = %lease.backup, "job put back");
                catalog.requeue(lease, Requeue::Stopped, now, "the service was stopped").await?;
                Ok(AttemptEnd::Stopped)
            }
            Verdict::Later(due, reason) => {
                tracing::warn!(job = %lease.job, backup = %lease.backup, attempt = lease.attempt, %due, reason, "attempt failed; trying again later");
                if lease.kind == JobKind::Remove {
                    self.figures.failed(lease.kind, FailureCode::RemovalFailed);
                }
                catalog.requeue(lease, Requeue::Failed, due, &reason).await?;
                Ok(AttemptEnd::Retried)
            }
            Verdict::GiveUp(failure) => {
                let Failure { code, reason } = &failure;
                tracing::warn!(job = %lease.job, backup = %lease.backup, attempt = lease.attempt, code = code.as_str(), reason, "job failed");
                match lease.kind {
                    JobKind::Capture | JobKind::Remove => {
                        catalog.fail_backup(lease, &failure, now).await?;
                    }
                    JobKind::Drill => catalog.fail_drill(lease, &failure.reason, now).await?,
                    JobKind::Restore => {
                        let outcome = restore::after_failure(&self.log(lease).read().await?);
                        catalog.fail_restore(lease, &failure, &outcome, now).await?;
                    }
                }
                self.figures.failed(lease.kind, failure.code);
                Ok(AttemptEnd::Failed)
            }
        }
    }
}

/// Logged when an attempt failed for the first time, with why.
const FIRST_FAILURE: &str = "first_failure";

fn not_done(what: &str, step: &dyn Step, limit: Duration) -> String {
    let seconds = limit.as_secs_f32();
    format!("the {what} `{}` was not done after {seconds} s, the limit", step.name())
}

enum Verdict {
    PutBack,
    Later(jiff::Timestamp, String),
    GiveUp(Failure),
}

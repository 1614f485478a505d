//! The job that restores a backup: check, save the target's own data, load, make durable.
//!
//! Up to the step `load` the target is not touched. What `load` is about to do to it is logged
//! before it begins, so that whoever takes the job up can go on with it or take it back.

mod keys;

use std::time::Duration;

use async_trait::async_trait;
use cachevault_catalog::CatalogError;
use cachevault_domain::{
    Backup, BackupId, Blocker, ContentState, Failure, FailureCode, Instance, Loading,
    NewSafetyBackup, Note, RdbDialect, Restore, RestoreOutcome, RestorePlan, RestoreWay, Target,
    TargetData, with_sources,
};
use cachevault_engine::{
    Comparison, LoadRequest, Loaded, Meter, PartRequest, PlanRequest, Prepared, PreparedKeys,
    ProofDemand, RestoreError, RestoreLimits, VerifyError, Withdrawn, check_part, load,
    make_durable, plan, prepare, prepare_keys, save, verify_artifact, withdraw,
};
use cachevault_store::{ArtifactEntry, ArtifactKey, BackupKey, Manifest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::capture::{
    Captured, SHARD, catalog_failed, content_state, manifest, remove_attempts, stored_files,
};
use crate::log::{Logged, StepLog};
use crate::step::{FailureNote, Step, StepContext, StepError, output, store_failed, stored_failed};
use crate::worker::JobSettings;
use keys::ByKeys;

pub(crate) const STEPS: [&dyn Step; 5] = [&Check, &Safety, &Prepare, &Load, &Settle];

/// Logged before the target is touched, with the moment.
const TOUCHED: &str = "touched";
/// Logged when taking it back begins, with why: from then on only that is gone on with.
const TAKING_BACK: &str = "taking_back";
/// Logged when the first command that would have changed the target was refused.
const UNTOUCHED: &str = "untouched";
/// Logged when loading failed before the target was sent a byte.
const NOTHING_SENT: &str = "nothing_sent";
/// Logged when the target's process ended while it loaded.
const TARGET_ENDED: &str = "target_ended";
/// Logged before the old data is loaded again, with how: a crash in the middle of that must not
/// leave the target following a port that nobody knows.
const LOADING_OLD: &str = "loading_old";
/// Logged when it was put back, with what it holds.
const PUT_BACK: &str = "put_back";

/// How the target is going to be touched.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Way {
    Replica(Prepared),
    Keys(PreparedKeys),
}

struct Check;
struct Safety;
struct Prepare;
struct Load;
struct Settle;

/// What was found out and decided while the target was not touched.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Checked {
    by_keys: bool,
    swap: bool,
    prove: bool,
    /// Why the data is not compared, where it should have been.
    unprovable: Option<String>,
    /// Keys that the target held.
    keys_before: u64,
}

/// The target's own data, saved.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Saved {
    backup: BackupIdText,
    captured: Captured,
}

impl Saved {
    fn of(id: BackupId, attempt: u32, manifest: Manifest) -> Result<Self, StepError> {
        let Manifest { instance_address: address, started_at, completed_at, artifacts, .. } =
            manifest;
        let entry = artifacts.into_iter().next().ok_or_else(no_files)?;
        let captured = Captured { attempt, address, started_at, completed_at, entry };
        Ok(Self { backup: id.to_string(), captured })
    }
}

/// An id as the log writes it.
type BackupIdText = String;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct LoadedOutput {
    loaded: Loaded,
    /// For how long the target took no writes; `None` where it took them all the time.
    unavailable_ms: Option<u64>,
}

/// Whether the data is compared, by the plan and by what was asked for.
fn demand(checked: &Checked, restore: &Restore) -> ProofDemand {
    match (checked.prove, restore.options.prove) {
        (false, _) => ProofDemand::None,
        (true, Some(true)) => ProofDemand::Required,
        (true, _) => ProofDemand::IfPossible,
    }
}

/// Adds to what was loaded why it was not compared.
fn explained(mut loaded: Loaded, checked: &Checked) -> Loaded {
    if loaded.comparison.unproven.is_none() {
        loaded.comparison.unproven.clone_from(&checked.unprovable);
    }
    loaded
}

/// What a restore is about.
struct Subject {
    restore: Restore,
    backup: Backup,
    target: Instance,
    manifest: Manifest,
}

impl Subject {
    /// The only shard of a standalone instance.
    fn artifact(&self) -> Result<(ArtifactKey, &ArtifactEntry), StepError> {
        let backup = &self.backup;
        let attempt = backup.stored_attempt.ok_or_else(no_files)?;
        let entry = self.manifest.artifacts.first().ok_or_else(no_files)?;
        Ok((key_of(backup).attempt(attempt).artifact(SHARD), entry))
    }
}

fn key_of(backup: &Backup) -> BackupKey {
    BackupKey { project: backup.project.clone(), instance: backup.instance, backup: backup.id }
}

fn no_files() -> StepError {
    fail(FailureCode::SizeUnconfirmed, "the backup has no files to restore from")
}

fn fail(code: FailureCode, reason: impl Into<String>) -> StepError {
    StepError::Fail(Failure { code, reason: reason.into() })
}

impl StepContext<'_> {
    async fn restore_subject(&self) -> Result<Subject, StepError> {
        let (app, lease) = (self.app, self.lease);
        let restore = app.catalog.restore_of(lease).await.map_err(catalog_failed)?;
        let found = app.catalog.find_backup(&lease.project, restore.backup).await;
        let backup = found.map_err(catalog_failed)?.ok_or_else(no_files)?;
        let manifest = app.find_manifest(&backup).await.map_err(stored_failed)?;
        Ok(Subject { restore, backup, target: self.restored_instance().await?, manifest })
    }

    async fn restored_instance(&self) -> Result<Instance, StepError> {
        let found = self.app.catalog.find_instance(&self.lease.project, self.lease.instance).await;
        let found = found.map_err(catalog_failed)?;
        found.ok_or_else(|| fail(FailureCode::ToolFailed, "the instance was removed"))
    }
}

#[async_trait]
impl Step for Check {
    fn name(&self) -> &'static str {
        "check"
    }

    fn limit(&self, settings: &JobSettings) -> Duration {
        settings.verify
    }

    async fn run(&self, context: &StepContext<'_>) -> Result<String, StepError> {
        let (app, lease) = (context.app, context.lease);
        app.catalog.start_restore(lease, app.clock.now()).await.map_err(catalog_failed)?;
        context.require_disk().await?;
        let subject = context.restore_subject().await?;
        let (key, entry) = subject.artifact()?;
        let plan = context.plan(&subject, None).await?;
        let (meter, break_off) = (Meter::default(), context.cancel.child_token());
        meter.enter("checking the backup");
        let verifying = async {
            tokio::select! {
                verified = verify_artifact(&*app.store, &key, entry) => verified.map_err(Some),
                () = break_off.cancelled() => Err(None),
            }
        };
        match context.reporting(&meter, &break_off, verifying).await? {
            Ok(()) => {}
            Err(None) => return Err(StepError::Stopped),
            Err(Some(error)) => return Err(unreadable(&error)),
        }
        if plan.way == RestoreWay::Keys && !subject.restore.options.filter.is_everything() {
            let target = context.target(&subject.target).await?;
            let looking = check_part(PartRequest {
                plan: context.plan_request(&subject, &target, None)?,
                store: &*app.store,
                key: &key,
                now: app.clock.now(),
                captured_at: subject.manifest.started_at,
            });
            let looking = async {
                tokio::select! {
                    blockers = looking => blockers,
                    () = break_off.cancelled() => Err(RestoreError::Cancelled),
                }
            };
            let blockers = context.reporting(&meter, &break_off, looking).await?;
            nothing_blocks(&blockers.map_err(as_step_error)?)?;
        }
        Ok(output(&Checked {
            by_keys: plan.way == RestoreWay::Keys,
            swap: plan.loading == Loading::Swap,
            prove: plan.prove,
            unprovable: plan.unprovable.filter(|_| !plan.prove),
            keys_before: plan.replaced_keys,
        }))
    }

    async fn undo(&self, _: &StepContext<'_>) -> Result<(), String> {
        Ok(())
    }
}

fn nothing_blocks(blockers: &[Blocker]) -> Result<(), StepError> {
    if blockers.is_empty() {
        return Ok(());
    }
    let reasons: Vec<_> = blockers.iter().map(ToString::to_string).collect();
    Err(fail(FailureCode::ToolFailed, reasons.join("; ")))
}

fn unreadable(error: &VerifyError) -> StepError {
    let failure = Failure { code: error.failure_code(), reason: with_sources(error) };
    match error {
        VerifyError::Store(store) if store.kind.may_pass() => StepError::Retry(failure),
        _ => StepError::Fail(failure),
    }
}

/// Why a step did not finish, in words.
fn plain(error: StepError) -> String {
    match error {
        StepError::Retry(failure) | StepError::Fail(failure) => failure.reason,
        StepError::Restart(reason) => reason,
        StepError::Stopped => "stopped".to_owned(),
    }
}

/// What an error of the engine means for its step. Where the target was touched, [`must_end`] makes it
/// the end whatever this says.
fn as_step_error(error: RestoreError) -> StepError {
    if let RestoreError::Cancelled = error {
        return StepError::Stopped;
    }
    let failure = Failure { code: error.failure_code(), reason: with_sources(&error) };
    if error.may_pass() { StepError::Retry(failure) } else { StepError::Fail(failure) }
}

/// Saves the target's own data as a backup like any other.
#[async_trait]
impl Step for Safety {
    fn name(&self) -> &'static str {
        "safety"
    }

    fn limit(&self, settings: &JobSettings) -> Duration {
        settings.capture.total.saturating_add(settings.commit)
    }

    async fn run(&self, context: &StepContext<'_>) -> Result<String, StepError> {
        let checked: Checked = context.output(Check.name())?;
        let (app, lease) = (context.app, context.lease);
        let subject = context.restore_subject().await?;
        if !subject.restore.options.safety_backup || checked.keys_before == 0 {
            return Ok(output(&None::<Saved>));
        }
        let note = format!("before restore {}", subject.restore.id);
        let note: Option<Note> = note.parse().ok();
        let id = BackupId::mint(&*app.entropy);
        let now = app.clock.now();
        let wish = NewSafetyBackup { id, note, created_at: now };
        let began = app.catalog.begin_safety_backup(lease, &wish, now).await;
        let id = began.map_err(catalog_failed)?;
        let key = context.safety_key(id);
        let record = app.catalog.find_backup(&lease.project, id).await.map_err(catalog_failed)?;
        let record = record.ok_or_else(no_files)?;
        if let Some(attempt) = record.stored_attempt {
            // Finished by an attempt that died before it could log this step.
            let manifest = app.store.find_manifest(&key.attempt(attempt)).await;
            let manifest = manifest.map_err(|error| store_failed(&error))?.ok_or_else(no_files)?;
            return Ok(output(&Some(Saved::of(id, attempt, manifest)?)));
        }
        // What an attempt left that died before it could log or undo this step.
        remove_attempts(context, &key).await.map_err(|error| store_failed(&error))?;
        let started_at = app.clock.now();
        let attempt = key.attempt(lease.attempt);
        let entry = context
            .capture(&subject.target, RdbDialect::Native, false, &attempt.artifact(SHARD))
            .await?;
        if checked.by_keys && content_state(&entry.rdb) != ContentState::Verified {
            let reason = "the target's own data is in a format that this build does not know, so \
                          commands cannot restore it; restore natively, or without a safety backup \
                          if that data is not needed";
            return Err(fail(FailureCode::ToolFailed, reason));
        }
        let captured = Captured {
            attempt: lease.attempt,
            address: Some(subject.target.connection.address.to_string()),
            started_at,
            completed_at: app.clock.now(),
            entry,
        };
        let files = stored_files(lease.attempt, &captured.entry.rdb);
        let manifest = manifest(&record, &subject.target, captured.clone());
        app.store.commit(&attempt, &manifest).await.map_err(|error| store_failed(&error))?;
        let finished = app.catalog.finish_safety_backup(lease, &files, app.clock.now());
        finished.await.map_err(catalog_failed)?;
        Ok(output(&Some(Saved { backup: id.to_string(), captured })))
    }

    fn leaves_only_files(&self) -> bool {
        true
    }

    /// A finished one stays: it is a backup like any other.
    async fn undo(&self, context: &StepContext<'_>) -> Result<(), String> {
        let restore = context.app.catalog.restore_of(context.lease).await;
        let Some(id) = restore.map_err(|e| with_sources(&e))?.safety_backup else { return Ok(()) };
        let found = context.app.catalog.find_backup(&context.lease.project, id).await;
        let is_finished = found
            .map_err(|e| with_sources(&e))?
            .is_some_and(|backup| backup.state == cachevault_domain::BackupState::Succeeded);
        if is_finished {
            return Ok(());
        }
        let removed = remove_attempts(context, &context.safety_key(id)).await;
        removed.map_err(|error| with_sources(&error))
    }
}

impl StepContext<'_> {
    fn safety_key(&self, backup: BackupId) -> BackupKey {
        BackupKey { project: self.lease.project.clone(), instance: self.lease.instance, backup }
    }

    /// The target's data as it was saved, if it was.
    fn saved(&self) -> Option<(ArtifactKey, ArtifactEntry)> {
        let saved: Option<Saved> = self.output(Safety.name()).ok()?;
        let Saved { backup, captured } = saved?;
        let attempt = self.safety_key(backup.parse().ok()?).attempt(captured.attempt);
        Some((attempt.artifact(SHARD), captured.entry))
    }

    /// What the restore would do now; fails when something stands in its way.
    async fn plan(
        &self,
        subject: &Subject,
        target_writes: Option<&str>,
    ) -> Result<RestorePlan, StepError> {
        let target = self.target(&subject.target).await?;
        let plan = plan(self.plan_request(subject, &target, target_writes)?);
        let plan = plan.await.map_err(as_step_error)?;
        nothing_blocks(&plan.blockers)?;
        Ok(plan)
    }

    fn plan_request<'r>(
        &'r self,
        subject: &'r Subject,
        target: &'r Target,
        target_writes: Option<&'r str>,
    ) -> Result<PlanRequest<'r>, StepError> {
        let (_, entry) = subject.artifact()?;
        Ok(PlanRequest {
            target,
            entry,
            options: &subject.restore.options,
            has_certificate: self.ours.identity.is_some(),
            target_writes,
            command: self.settings.restore.command,
        })
    }

    async fn prepare(&self, target: &Instance, swap: bool) -> Result<Prepared, StepError> {
        let target = self.target(target).await?;
        let mut random = [0; 40];
        self.app.entropy.fill(&mut random);
        let settings = self.settings;
        prepare(&target, swap, self.ours, random, &settings.restore).await.map_err(as_step_error)
    }
}

#[async_trait]
impl Step for Prepare {
    fn name(&self) -> &'static str {
        "prepare"
    }

    fn limit(&self, settings: &JobSettings) -> Duration {
        settings.restore.total
    }

    async fn run(&self, context: &StepContext<'_>) -> Result<String, StepError> {
        let checked: Checked = context.output(Check.name())?;
        let subject = context.restore_subject().await?;
        // Saving the target's own data may have taken long, and has shown which format it writes.
        let saved = context.saved();
        let target_writes = saved.as_ref().map(|(_, entry)| entry.rdb.header.as_str());
        context.plan(&subject, target_writes).await?;
        if !checked.by_keys {
            let prepared = context.prepare(&subject.target, checked.swap).await?;
            return Ok(output(&Way::Replica(prepared)));
        }
        let target = context.target(&subject.target).await?;
        let prepared = prepare_keys(&target, &context.settings.restore).await;
        Ok(output(&Way::Keys(prepared.map_err(as_step_error)?)))
    }

    async fn undo(&self, _: &StepContext<'_>) -> Result<(), String> {
        Ok(())
    }
}

#[async_trait]
impl Step for Load {
    fn name(&self) -> &'static str {
        "load"
    }

    fn limit(&self, settings: &JobSettings) -> Duration {
        // Loading, reading the artifact for the proof and looking through the target may each take
        // all of it; taking back what was done costs more than waiting.
        settings.restore.total.saturating_mul(3)
    }

    fn undo_limit(&self, settings: &JobSettings) -> Duration {
        // The old data is loaded in two ways, and the target withdrawn before and after each.
        settings.restore.total.saturating_mul(4)
    }

    async fn run(&self, context: &StepContext<'_>) -> Result<String, StepError> {
        let checked: Checked = context.output(Check.name())?;
        let way: Way = context.output(Prepare.name())?;
        let subject = context.restore_subject().await?;
        let (key, entry) = subject.artifact()?;
        let target = context.target(&subject.target).await?;
        let (app, lease) = (context.app, context.lease);
        if let Ok(why) = context.output::<FailureNote>(TAKING_BACK) {
            let reason = "the restore was being undone";
            let why = why.into_failure();
            return Err(why.map_or(fail(FailureCode::RestoreSyncFailed, reason), StepError::Fail));
        }
        for what in [UNTOUCHED, NOTHING_SENT] {
            // Of an attempt that died before it could be undone: this one goes on.
            context.log().remove(what).await.map_err(catalog_failed)?;
        }
        let (touched_at, now) = (context.output::<Timestamp>(TOUCHED), app.clock.now());
        let is_again = touched_at.is_ok();
        let began = touched_at.unwrap_or(now);
        // From here on the target is no longer as it was, and nobody cancels any more.
        app.catalog.touch_target(lease, now).await.map_err(|error| match error {
            CatalogError::Cancelled => StepError::Stopped,
            error => catalog_failed(error),
        })?;
        context.log().add(TOUCHED, &output(&began)).await.map_err(catalog_failed)?;
        let prepared = match &way {
            Way::Replica(prepared) => prepared,
            Way::Keys(prepared) => {
                let by_keys = ByKeys { context, target: &target, prepared };
                let captured_at = subject.manifest.started_at;
                let of = (&key, entry);
                let loading = by_keys.load(&subject.restore, of, captured_at, &checked, is_again);
                let loaded = loading.await?;
                let loaded = explained(loaded, &checked);
                return Ok(output(&LoadedOutput { loaded, unavailable_ms: None }));
            }
        };
        let request = LoadRequest {
            target: &target,
            store: &*app.store,
            key: &key,
            entry,
            prove: demand(&checked, &subject.restore),
            identity: context.ours.identity.as_ref(),
            gate: context.gate,
            limits: context.settings.restore,
        };
        let (meter, break_off) = (Meter::default(), context.cancel.child_token());
        let loading = load(request, prepared, &meter, &break_off);
        let loaded = match context.reporting(&meter, &break_off, loading).await? {
            Ok(loaded) => explained(loaded, &checked),
            Err(error) => {
                if error.is_target_ended() {
                    context.log_anew(TARGET_ENDED, &output(&())).await.map_err(later)?;
                }
                if meter.read().received_bytes == 0 && !is_again {
                    if error.is_refusal() {
                        context.log_anew(UNTOUCHED, &output(&())).await.map_err(later)?;
                    }
                    context.log_anew(NOTHING_SENT, &output(&())).await.map_err(later)?;
                }
                return Err(as_step_error(error));
            }
        };
        let unavailable_ms = millis(began, app.clock.now());
        tracing::info!(job = %lease.job, unavailable_ms, keys = loaded.keys, proven = loaded.comparison.proven, "loaded and promoted");
        Ok(output(&LoadedOutput { loaded, unavailable_ms }))
    }

    /// Makes the target a primary again, with its old data.
    async fn undo(&self, context: &StepContext<'_>) -> Result<(), String> {
        let log = context.log().read().await.map_err(|error| with_sources(&error))?;
        let Some(touched) = log.iter().find(|record| record.step == TOUCHED) else {
            return Ok(());
        };
        let touched_at = serde_json::from_str::<Timestamp>(&touched.output);
        let text = |error: CatalogError| with_sources(&error);
        let holds = self.take_back(context).await?;
        tracing::warn!(job = %context.lease.job, holds = holds.as_str(), "the restore was taken back");
        let way = match context.output(Prepare.name()).map_err(plain)? {
            Way::Replica(_) => RestoreWay::Replica,
            Way::Keys(_) => RestoreWay::Keys,
        };
        let is_touched = holds != TargetData::Untouched;
        let was_away_from = touched_at.ok().filter(|_| way == RestoreWay::Replica && is_touched);
        let put_back = PutBack {
            holds: holds.as_str().to_owned(),
            way: way.as_str().to_owned(),
            unavailable_ms: was_away_from.and_then(|at| millis(at, context.app.clock.now())),
        };
        context.log_anew(PUT_BACK, &output(&put_back)).await?;
        context.log().remove(LOADING_OLD).await.map_err(text)?;
        context.log().remove(TOUCHED).await.map_err(text)
    }
}

/// What a target holds after its restore was taken back, as the log writes it.
#[derive(Debug, Serialize, Deserialize)]
struct PutBack {
    holds: String,
    /// How it had been touched.
    way: String,
    /// For how long it took no writes; `None` where it took them all the time.
    unavailable_ms: Option<u64>,
}

fn millis(from: Timestamp, to: Timestamp) -> Option<u64> {
    u64::try_from(to.duration_since(from).as_millis()).ok()
}

fn later(reason: String) -> StepError {
    StepError::Retry(Failure { code: FailureCode::ToolFailed, reason })
}

impl StepContext<'_> {
    /// Whether something was logged, also by this attempt.
    async fn is_logged(&self, name: &str) -> Result<bool, String> {
        let log = self.log().read().await.map_err(|error| with_sources(&error))?;
        Ok(log.iter().any(|record| record.step == name))
    }

    /// Logs something in place of what was logged under that name before.
    async fn log_anew(&self, name: &str, output: &str) -> Result<(), String> {
        let text = |error: CatalogError| with_sources(&error);
        self.log().remove(name).await.map_err(text)?;
        self.log().add(name, output).await.map_err(text)
    }
}

/// How long a target whose process ended may take to be started again by its supervisor, beyond the
/// time after which that was noticed.
const RESTART_MAX: Duration = Duration::from_secs(4);
const RESTART_LOOK: Duration = Duration::from_millis(250);

/// Withdraws a target whose process ended, once it runs again; `None` when it does not.
async fn withdraw_if_restarted(
    target: &Target,
    prepared: &Prepared,
    limits: &RestoreLimits,
) -> Option<Result<Withdrawn, RestoreError>> {
    let until = tokio::time::Instant::now() + RESTART_MAX;
    loop {
        match withdraw(target, prepared, limits).await {
            Err(error) if error.is_connection_refused() => {}
            found => return Some(found),
        }
        if tokio::time::Instant::now() >= until {
            return None;
        }
        tokio::time::sleep(RESTART_LOOK).await;
    }
}

impl Load {
    async fn take_back(&self, context: &StepContext<'_>) -> Result<TargetData, String> {
        let checked: Checked = context.output(Check.name()).map_err(plain)?;
        let way: Way = context.output(Prepare.name()).map_err(plain)?;
        // Not the backup: taking back goes without what is stored of it.
        let instance = context.restored_instance().await.map_err(plain)?;
        let target = context.target(&instance).await.map_err(plain)?;
        let limits = &context.settings.restore;
        let prepared = match way {
            Way::Replica(prepared) => prepared,
            Way::Keys(prepared) => {
                let by_keys = ByKeys { context, target: &target, prepared: &prepared };
                return by_keys.take_back(context.saved(), &checked).await;
            }
        };
        let found = if context.is_logged(TARGET_ENDED).await? {
            match withdraw_if_restarted(&target, &prepared, limits).await {
                // There is nobody to take anything back from.
                None => return Ok(TargetData::Uncertain),
                Some(found) => found,
            }
        } else {
            withdraw(&target, &prepared, limits).await
        };
        let mut found = found.map_err(|error| with_sources(&error))?;
        if let Ok(interrupted) = context.output::<Prepared>(LOADING_OLD) {
            let withdrawn = withdraw(&target, &interrupted, limits).await;
            withdrawn.map_err(|error| with_sources(&error))?;
            found = Withdrawn::Changed;
        }
        if context.is_logged(UNTOUCHED).await? {
            return Ok(TargetData::Untouched);
        }
        if found == Withdrawn::OldData || context.is_logged(NOTHING_SENT).await? {
            return Ok(TargetData::Old);
        }
        let Some((key, entry)) = context.saved() else {
            tracing::error!(job = %context.lease.job, "the target has lost its old data, and there is no safety backup to put back");
            return Ok(TargetData::Uncertain);
        };
        let request = LoadRequest {
            target: &target,
            store: &*context.app.store,
            key: &key,
            entry: &entry,
            prove: ProofDemand::IfPossible,
            identity: context.ours.identity.as_ref(),
            gate: context.gate,
            limits: *limits,
        };
        let mut failed = String::new();
        // The way that just worked first: a full disk may be why the restore failed.
        for swap in [checked.swap, !checked.swap] {
            let prepared = context.prepare(&instance, swap).await.map_err(plain)?;
            context.log_anew(LOADING_OLD, &output(&prepared)).await?;
            match self.put_back(context, request, &prepared).await {
                Ok(()) => return Ok(TargetData::Old),
                Err(reason) => failed = reason,
            }
            // Whatever it holds, it is not left as a replica of nobody.
            withdraw(&target, &prepared, limits).await.map_err(|error| with_sources(&error))?;
        }
        Err(failed)
    }

    async fn put_back(
        &self,
        context: &StepContext<'_>,
        request: LoadRequest<'_>,
        prepared: &Prepared,
    ) -> Result<(), String> {
        // Not to be broken off: half of it would be worse than either.
        let never = CancellationToken::new();
        let meter = Meter::default();
        meter.enter("putting the old data back");
        let loading = load(request, prepared, &meter, &never);
        let loaded = context.reporting(&meter, &never, loading).await.map_err(plain)?;
        loaded.map_err(|error| with_sources(&error))?;
        match make_durable(request.target, prepared, &request.limits).await {
            // It holds its old data; that its disk takes nothing was so before.
            Err(RestoreError::NotDurable { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(with_sources(&error)),
        }
    }
}

/// Waits until the target has its new data on its disk.
#[async_trait]
impl Step for Settle {
    fn name(&self) -> &'static str {
        "settle"
    }

    fn limit(&self, settings: &JobSettings) -> Duration {
        settings.restore.total
    }

    async fn run(&self, context: &StepContext<'_>) -> Result<String, StepError> {
        let way: Way = context.output(Prepare.name())?;
        let target = context.target(&context.restored_instance().await?).await?;
        let limits = &context.settings.restore;
        let saving = async {
            match &way {
                Way::Replica(prepared) => make_durable(&target, prepared, limits).await,
                Way::Keys(prepared) => save(&target, Some(prepared), limits).await,
            }
        };
        let (meter, break_off) = (Meter::default(), context.cancel.child_token());
        meter.enter("waiting until the target has saved");
        let settling = async {
            tokio::select! {
                durable = saving => durable,
                () = break_off.cancelled() => Err(RestoreError::Cancelled),
            }
        };
        context.reporting(&meter, &break_off, settling).await?.map_err(as_step_error)?;
        Ok(output(&()))
    }

    async fn undo(&self, _: &StepContext<'_>) -> Result<(), String> {
        Ok(())
    }
}

impl StepContext<'_> {
    /// How a restore went whose steps are all done.
    pub(crate) fn restored(&self) -> Result<RestoreOutcome, StepError> {
        let LoadedOutput { loaded, unavailable_ms } = self.output(Load.name())?;
        let Comparison { proven, unproven, uncompared, empty } = loaded.comparison;
        let left_out = (empty > 0)
            .then(|| format!("{empty} keys without elements were left out, as servers do"));
        Ok(RestoreOutcome {
            way: Some(match unavailable_ms {
                Some(_) => RestoreWay::Replica,
                None => RestoreWay::Keys,
            }),
            target: TargetData::New,
            unavailable_ms,
            proven,
            unproven: unproven.or(left_out),
            uncompared,
            keys: Some(loaded.keys),
        })
    }
}

/// Whether a restore has to end because its target was touched and the step that did is broken off:
/// what was checked and saved before belongs to another moment by the next attempt.
pub(crate) fn must_end(step: &str, log: &[Logged]) -> bool {
    step == Load.name() && log.iter().any(|record| record.step == TOUCHED)
}

/// Logs why a restore is taken back, before it is.
pub(crate) async fn begin_taking_back(
    log: StepLog<'_>,
    failure: &Failure,
) -> Result<(), CatalogError> {
    log.add(TAKING_BACK, &output(&FailureNote::of(failure))).await
}

/// What a target holds after a restore that failed, by the job's log.
pub(crate) fn after_failure(log: &[Logged]) -> RestoreOutcome {
    let said = |step: &str| log.iter().find(|record| record.step == step);
    let put_back = said(PUT_BACK).map(|record| serde_json::from_str::<PutBack>(&record.output));
    let holds = |told: &PutBack| TargetData::ALL.into_iter().find(|t| t.as_str() == told.holds);
    let target = match &put_back {
        Some(told) => told.as_ref().ok().and_then(holds).unwrap_or(TargetData::Uncertain),
        None if said(TOUCHED).is_some() => TargetData::Uncertain,
        None => TargetData::Untouched,
    };
    let told = put_back.and_then(Result::ok).filter(|_| target != TargetData::Untouched);
    let way = |told: &PutBack| RestoreWay::ALL.into_iter().find(|way| way.as_str() == told.way);
    RestoreOutcome {
        way: told.as_ref().and_then(way),
        target,
        unavailable_ms: told.and_then(|told| told.unavailable_ms),
        proven: false,
        unproven: None,
        uncompared: 0,
        keys: None,
    }
}

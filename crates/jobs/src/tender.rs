//! Looks after what is stored: reads it again from time to time, removes what no backup is made of,
//! and seals keys anew after a change of the master key.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cachevault_app::{App, StoredError};
use cachevault_domain::{Backup, BackupId, BackupState, ProjectId, with_sources};
use cachevault_engine::{VerifyError, verify_artifact};
use cachevault_store::{AttemptKey, BackupKey, Folder, KeyRing, Manifest, ObjectKind, StoreError};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::figures::JobFigures;
use crate::shutdown::Shutdown;

/// How often it is looked whether somebody has asked for a check.
const LOOK: Duration = Duration::from_secs(2);
/// Checks of a round, one after the other.
const ROUND_MAX: u32 = 4;
/// Events that are forgotten in one transaction.
const EVENTS_DROPPED_MAX: u32 = 1000;
/// A check that could not be made is tried again after this time.
const TRY_AGAIN: Duration = Duration::from_mins(10);

/// Looks after the store.
#[derive(Debug)]
pub struct Tender {
    /// The use cases' context.
    pub app: App,
    /// How long ago a backup's files may have been read.
    pub check_every: Duration,
    /// How often the store is swept.
    pub sweep_every: Duration,
    /// How old what has no manifest must be before it is removed: longer than any job takes.
    pub grace: Duration,
    /// How long it is kept who did what.
    pub audit_keep: Duration,
    /// Longest time that the check of one backup may take, and a sweep.
    pub time_max: Duration,
    /// How long it is kept what has happened.
    pub events_keep: Duration,
    /// What is counted.
    pub figures: JobFigures,
    /// When a check could not be made.
    pub tried: Mutex<BTreeMap<BackupId, Timestamp>>,
}

/// What a sweep has done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Attempts that were removed.
    pub removed: u64,
    /// Keys that were sealed with the current master key.
    pub rewrapped: u64,
    /// Backups that the catalog does not know. They are left alone.
    pub unknown: u64,
    /// Keys that could not be sealed anew.
    pub failed: u64,
    /// Keys that still need an earlier master key: those that could not be sealed anew, and those of
    /// what a job works on.
    pub earlier: u64,
}

/// A sweep that is going on.
struct Sweep {
    /// What is older may be removed.
    old: Timestamp,
    swept: Swept,
    /// Keys by the id of the master key that they are sealed with.
    keys: BTreeMap<String, u64>,
}

/// What lies in the folder of an attempt.
struct Attempt {
    key: AttemptKey,
    has_manifest: bool,
    /// The id of the master key that its key is sealed with, the earlier one of two.
    master_key: Option<String>,
    newest: Timestamp,
}

impl Tender {
    /// Looks after the store until the soft phase of `shutdown`.
    pub async fn run(&self, shutdown: &Shutdown) {
        let tend = async {
            let mut swept = None::<Instant>;
            loop {
                self.check_round().await;
                if swept.is_none_or(|at| at.elapsed() >= self.sweep_every) {
                    self.sweep_round().await;
                    self.drop_audit().await;
                    self.drop_events().await;
                    swept = Some(Instant::now());
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = shutdown.soft.cancelled() => {}
            () = tend => {}
        }
    }

    /// Forgets who did what too long ago; how many calls.
    pub async fn drop_audit(&self) -> u64 {
        let Ok(before) = self.app.clock.now().checked_sub(self.audit_keep) else { return 0 };
        match self.app.catalog.drop_audit(before).await {
            Ok(dropped) => {
                if dropped > 0 {
                    tracing::info!(dropped, "old audit records were removed");
                }
                dropped
            }
            Err(error) => {
                let reason = with_sources(&error);
                tracing::warn!(reason, "old audit records could not be removed");
                0
            }
        }
    }

    /// Forgets what has happened too long ago; how many events.
    pub async fn drop_events(&self) -> u64 {
        let Ok(before) = self.app.clock.now().checked_sub(self.events_keep) else { return 0 };
        let mut all = 0;
        loop {
            match self.app.catalog.drop_events(before, EVENTS_DROPPED_MAX).await {
                Ok(dropped) => {
                    all += dropped;
                    if dropped < EVENTS_DROPPED_MAX.into() {
                        break;
                    }
                }
                Err(error) => {
                    let reason = with_sources(&error);
                    tracing::warn!(reason, "old events could not be removed");
                    break;
                }
            }
        }
        if all > 0 {
            tracing::info!(dropped = all, "old events were removed");
        }
        all
    }

    async fn sweep_round(&self) {
        match self.in_time(self.sweep()).await {
            Ok(swept) => {
                let Swept { removed, rewrapped, unknown, failed, earlier } = swept;
                if swept != Swept::default() {
                    tracing::info!(removed, rewrapped, unknown, failed, "the store was swept");
                }
                if earlier > 0 {
                    tracing::warn!(
                        earlier,
                        "keys of backups still need an earlier master key: leave it in its file"
                    );
                }
            }
            Err(reason) => tracing::warn!(reason, "the store could not be swept"),
        }
    }

    /// Checks what is due, some of it at a time; how many.
    pub async fn check_round(&self) -> usize {
        let Ok(before) = self.app.clock.now().checked_sub(self.check_every) else { return 0 };
        let tried = self.recently_tried();
        let limit = ROUND_MAX + u32::try_from(tried.len()).unwrap_or(u32::MAX - ROUND_MAX);
        let due = match self.app.catalog.backups_to_check(before, limit).await {
            // What could not be checked must not keep the others from it.
            Ok(due) => {
                let fresh = due.into_iter().filter(|(_, id)| !tried.contains(id));
                fresh.take(ROUND_MAX as usize).collect::<Vec<_>>()
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "what is to be checked cannot be told");
                return 0;
            }
        };
        for (project, backup) in &due {
            if let Err(reason) = self.in_time(self.check(project, *backup)).await {
                tracing::warn!(%backup, reason, "a backup could not be checked; it is tried again");
                let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
                tried.insert(*backup, self.app.clock.now());
            }
        }
        due.len()
    }

    /// A store that hangs must not keep us from everything else.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let ended = tokio::time::timeout(self.time_max, work).await;
        let seconds = self.time_max.as_secs();
        ended.unwrap_or_else(|_| Err(format!("it was not done after {seconds} s, the limit")))
    }

    /// Backups that could not be checked a short time ago.
    fn recently_tried(&self) -> Vec<BackupId> {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let again = self.app.clock.now().checked_sub(TRY_AGAIN).unwrap_or(Timestamp::MIN);
        tried.retain(|_, at| *at > again);
        tried.keys().copied().collect()
    }

    async fn check(&self, project: &ProjectId, id: BackupId) -> Result<(), String> {
        let began = self.app.clock.now();
        let found = self.app.catalog.find_backup(project, id).await;
        let Some(backup) = found.map_err(|e| with_sources(&e))? else { return Ok(()) };
        let Some(attempt) = backup.stored_attempt.filter(|_| backup.has_files()) else {
            return Ok(());
        };
        let damage = self.damage(&backup, attempt).await?;
        if let Some(damage) = &damage {
            tracing::error!(backup = %id, damage, "a stored backup is damaged");
        }
        let now = self.app.clock.now();
        let recorded =
            self.app.catalog.record_check(id, attempt, damage.as_deref(), began, now).await;
        recorded.map_err(|error| with_sources(&error))
    }

    /// What is wrong with a backup's files; an error when that cannot be told now.
    async fn damage(&self, backup: &Backup, attempt: u32) -> Result<Option<String>, String> {
        let manifest = match self.app.find_manifest(backup).await {
            Ok(manifest) => manifest,
            Err(error) => return lasting(error),
        };
        let (project, instance) = (backup.project.clone(), backup.instance);
        let key = BackupKey { project, instance, backup: backup.id }.attempt(attempt);
        self.damaged_artifact(&key, &manifest).await
    }

    async fn damaged_artifact(
        &self,
        key: &AttemptKey,
        manifest: &Manifest,
    ) -> Result<Option<String>, String> {
        for (shard, entry) in (0..).zip(&manifest.artifacts) {
            let artifact = key.artifact(shard).encoded(entry.encoding);
            match verify_artifact(&*self.app.store, &artifact, entry).await {
                Ok(()) => {}
                Err(VerifyError::Store(error)) => return lasting(error.into()),
                Err(error) => {
                    let name = artifact.file_name();
                    return Ok(Some(format!("its artifact `{name}`: {}", with_sources(&error))));
                }
            }
        }
        Ok(None)
    }

    /// Goes once through the whole store: removes garbage, and seals with the current master key
    /// what is sealed with an earlier one.
    ///
    /// # Errors
    /// The reason why it was not gone through to its end.
    pub async fn sweep(&self) -> Result<Swept, String> {
        let text = |error: StoreError| with_sources(&error);
        let old = self.app.clock.now().checked_sub(self.grace);
        let old = old.map_err(|error| error.to_string())?;
        let mut sweep = Sweep { old, swept: Swept::default(), keys: BTreeMap::new() };
        let mut after = None;
        let mut current: Option<Attempt> = None;
        loop {
            let found = self.app.store.list(&Folder::all(), after.as_ref()).await.map_err(text)?;
            let Some(last) = found.last() else { break };
            after = Some(last.name.clone());
            for object in found {
                let Some(kind) = object.name.kind() else { continue };
                if current.as_ref().is_none_or(|attempt| attempt.key != *kind.attempt()) {
                    let fresh = Attempt {
                        key: kind.attempt().clone(),
                        has_manifest: false,
                        master_key: None,
                        newest: object.modified_at,
                    };
                    if let Some(done) = current.replace(fresh) {
                        self.judge(&done, &mut sweep).await?;
                    }
                }
                if let Some(attempt) = &mut current {
                    attempt.newest = attempt.newest.max(object.modified_at);
                    attempt.has_manifest |= matches!(kind, ObjectKind::Manifest(_));
                    if let ObjectKind::DataKey(_, id) = kind
                        && (attempt.master_key.is_none() || id != self.app.sealer.current())
                    {
                        attempt.master_key = Some(id);
                    }
                }
            }
        }
        if let Some(done) = current {
            self.judge(&done, &mut sweep).await?;
        }
        self.sweep_unfinished(old).await?;
        self.figures.keys_counted(sweep.keys);
        Ok(sweep.swept)
    }

    /// Ends what was begun before `old` and never finished, but for what a job may still write.
    async fn sweep_unfinished(&self, old: Timestamp) -> Result<(), String> {
        let unfinished = self.app.store.unfinished(old).await.map_err(|e| with_sources(&e))?;
        for attempt in unfinished {
            let record = self.find_record(&attempt).await?;
            if record.is_some_and(|record| !record.state.is_settled()) {
                continue;
            }
            tracing::info!(%attempt, "removing what was never finished");
            let folder = Folder::of_attempt(&attempt);
            let removed = self.app.store.remove_unfinished(&folder, Some(old)).await;
            removed.map_err(|error| with_sources(&error))?;
        }
        Ok(())
    }

    /// The record of the backup that an attempt is of.
    async fn find_record(&self, attempt: &AttemptKey) -> Result<Option<Backup>, String> {
        let BackupKey { project, backup, .. } = &attempt.backup;
        let found = self.app.catalog.find_backup(project, *backup).await;
        found.map_err(|error| with_sources(&error))
    }

    async fn judge(&self, attempt: &Attempt, sweep: &mut Sweep) -> Result<(), String> {
        let record = self.find_record(&attempt.key).await?;
        let is_its_backup = record.as_ref().is_some_and(|record| {
            record.has_files() && record.stored_attempt == Some(attempt.key.attempt)
        });
        let is_garbage = match &record {
            // A job may still commit it.
            Some(record) if !record.state.is_settled() => false,
            Some(record) if record.state == BackupState::Succeeded => {
                record.stored_attempt != Some(attempt.key.attempt)
            }
            Some(_) => true,
            None if attempt.has_manifest => {
                sweep.swept.unknown += 1;
                false
            }
            None => true,
        };
        if is_garbage && attempt.newest < sweep.old {
            tracing::info!(attempt = %attempt.key, "removing what no backup is made of");
            self.app.store.remove_attempt(&attempt.key).await.map_err(|e| with_sources(&e))?;
            sweep.swept.removed += 1;
        } else if let (Some(master_key), false) = (&attempt.master_key, is_garbage) {
            // The keys of what a job still works on are left alone. What the catalog does not know
            // may become known: its key is to open then.
            let may_rewrap = is_its_backup || record.is_none();
            self.seal_anew(&attempt.key, master_key, may_rewrap, sweep).await;
        }
        Ok(())
    }

    /// Counts a key, and seals it with the current master key where it is not and may be.
    async fn seal_anew(
        &self,
        attempt: &AttemptKey,
        master_key: &str,
        may_rewrap: bool,
        sweep: &mut Sweep,
    ) {
        let (sealer, swept) = (&self.app.sealer, &mut sweep.swept);
        let mut now_under = if sealer.has(master_key) { master_key } else { "unknown" };
        if master_key != sealer.current() && may_rewrap {
            match self.app.store.rewrap(attempt).await {
                Ok(done) => {
                    swept.rewrapped += u64::from(done);
                    now_under = sealer.current();
                }
                Err(error) => {
                    let reason = with_sources(&error);
                    tracing::warn!(%attempt, reason, "a key could not be sealed anew");
                    swept.failed += 1;
                }
            }
        }
        swept.earlier += u64::from(now_under != sealer.current());
        *sweep.keys.entry(now_under.to_owned()).or_default() += 1;
    }
}

/// What a failed operation says of the files: damage, or an error that may pass.
fn lasting(error: StoredError) -> Result<Option<String>, String> {
    match error {
        StoredError::Damaged(damage) => Ok(Some(damage)),
        StoredError::Unavailable(error) => Err(with_sources(&error)),
    }
}

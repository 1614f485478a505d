//! Making the catalog again from what the store holds.

use cachevault_domain::{
    Address, Backup, BackupFormat, BackupState, ContentState, EngineKind, Note, Progress,
    ProjectId, RdbDialect, StoredBackup, Trigger,
};
use cachevault_store::{AttemptKey, BackupKey, ContentEntry, Folder, Manifest, ObjectKind};
use jiff::Timestamp;

use crate::{App, AppError};

/// Records that are looked at in one transaction.
const PAGE: u32 = 100;
/// Most manifests that cannot be used; with more of them something else is wrong.
const UNREADABLE_MAX: usize = 1000;

/// What was found in a store, and what of it was not known.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// Backups that were added to the catalog.
    pub added: u64,
    /// Backups that it knew.
    pub known: u64,
    /// Backups that it knew and whose files are gone; they are marked as damaged.
    pub lost: u64,
    /// Projects that backups belong to.
    pub projects: Vec<ProjectId>,
    /// Attempts without a manifest: not finished, or not removed in whole. The sweeper removes
    /// them in time.
    pub unfinished: u64,
    /// Manifests that tell of no backup, with the reason.
    pub unreadable: Vec<String>,
}

impl App {
    /// Adds every backup of the store to the catalog that it lacks, with instances (without their
    /// secrets) and projects, and marks those as damaged that the store has no longer. Doing it again
    /// changes nothing.
    ///
    /// # Errors
    /// [`AppError::StoreUnavailable`], [`AppError::CatalogFailed`]; what was added stays.
    pub async fn rebuild(&self) -> Result<Rebuilt, AppError> {
        let mut rebuilt = Rebuilt { lost: self.mark_lost().await?, ..Rebuilt::default() };
        let mut after = None;
        let mut seen: Option<(AttemptKey, bool)> = None;
        loop {
            let found = self.store.list(&Folder::all(), after.as_ref()).await;
            let found = found.map_err(AppError::StoreUnavailable)?;
            let Some(last) = found.last() else { break };
            after = Some(last.name.clone());
            for object in found {
                let Some(kind) = object.name.kind() else { continue };
                if seen.as_ref().is_none_or(|(attempt, _)| attempt != kind.attempt()) {
                    rebuilt.leave(seen.take());
                    seen = Some((kind.attempt().clone(), false));
                }
                if let ObjectKind::Manifest(attempt) = &kind {
                    self.adopt(attempt, &mut rebuilt).await?;
                    seen = Some((attempt.clone(), true));
                }
            }
        }
        rebuilt.leave(seen);
        Ok(rebuilt)
    }

    /// Marks the backups as damaged whose files are gone; how many there are.
    async fn mark_lost(&self) -> Result<u64, AppError> {
        let (mut lost, mut after) = (0, None);
        loop {
            let known = self.catalog.stored_backups(after, PAGE).await?;
            let Some(last) = known.last() else { return Ok(lost) };
            after = Some(last.id);
            for backup in &known {
                let Some(attempt) = backup.stored_attempt else { continue };
                let Some(damage) = self.what_is_gone(backup, attempt).await? else { continue };
                let now = self.clock.now();
                self.catalog.record_check(backup.id, attempt, Some(damage), now, now).await?;
                lost += 1;
            }
        }
    }

    /// Which file of a backup is gone, if one is. Whether the others are sound only a check tells.
    async fn what_is_gone(
        &self,
        backup: &Backup,
        attempt: u32,
    ) -> Result<Option<&'static str>, AppError> {
        let (project, instance) = (backup.project.clone(), backup.instance);
        let key = BackupKey { project, instance, backup: backup.id }.attempt(attempt);
        let found = self.store.list(&Folder::of_attempt(&key), None).await;
        let found = found.map_err(AppError::StoreUnavailable)?;
        let has = |is_it: fn(&ObjectKind) -> bool| {
            found.iter().filter_map(|object| object.name.kind()).any(|kind| is_it(&kind))
        };
        Ok(if !has(|kind| matches!(kind, ObjectKind::Manifest(_))) {
            Some("its manifest is missing from the store")
        } else if !has(|kind| matches!(kind, ObjectKind::Artifact(_))) {
            Some("its artifact is missing from the store")
        } else {
            None
        })
    }

    async fn adopt(&self, attempt: &AttemptKey, rebuilt: &mut Rebuilt) -> Result<(), AppError> {
        let manifest = match self.store.find_manifest(attempt).await {
            Ok(Some(manifest)) => manifest,
            // Removed since it was listed.
            Ok(None) => return Ok(()),
            // One that cannot be read must not keep the others from coming back.
            Err(error) if rebuilt.unreadable.len() < UNREADABLE_MAX => {
                let reason = error.source.map(|source| format!(": {source}")).unwrap_or_default();
                rebuilt.unreadable.push(format!("{attempt}{reason}"));
                return Ok(());
            }
            Err(error) => return Err(AppError::StoreUnavailable(error)),
        };
        let stored = match stored_backup(attempt, &manifest) {
            Ok(stored) => promised_again(stored, self.clock.now()),
            Err(reason) => {
                rebuilt.unreadable.push(format!("{attempt}: {reason}"));
                return Ok(());
            }
        };
        if !rebuilt.projects.contains(&attempt.backup.project) {
            rebuilt.projects.push(attempt.backup.project.clone());
        }
        if self.catalog.adopt_stored(&stored).await? {
            rebuilt.added += 1;
        } else {
            rebuilt.known += 1;
        }
        Ok(())
    }
}

impl Rebuilt {
    /// Counts an attempt of which all objects were seen.
    fn leave(&mut self, attempt: Option<(AttemptKey, bool)>) {
        if let Some((_, false)) = attempt {
            self.unfinished += 1;
        }
    }
}

/// A promise that is over does not end a backup that is still there: something else has kept it, such
/// as a rule of a policy or somebody's hold, which the store does not tell. From now on it stays
/// until a new policy or a person says otherwise.
fn promised_again(mut stored: StoredBackup, now: Timestamp) -> StoredBackup {
    stored.backup.keep_until = stored.backup.keep_until.filter(|until| *until > now);
    stored
}

/// What a manifest says of the content: opaque where one of its artifacts is.
fn content_state(manifest: &Manifest) -> ContentState {
    let mut state = ContentState::Verified;
    for artifact in &manifest.artifacts {
        match artifact.rdb.content {
            Some(ContentEntry::Verified { .. }) => {}
            Some(ContentEntry::Opaque { .. }) => return ContentState::Opaque,
            None => state = ContentState::Unknown,
        }
    }
    state
}

/// How many keys the artifacts hold, if all were counted.
fn key_count(manifest: &Manifest) -> Option<u64> {
    let mut counts = manifest.artifacts.iter().map(|entry| entry.rdb.key_count());
    counts.try_fold(0_u64, |sum, keys| Some(sum.saturating_add(keys?)))
}

fn stored_backup(attempt: &AttemptKey, manifest: &Manifest) -> Result<StoredBackup, String> {
    let key = &attempt.backup;
    let ids = [&manifest.project_id, &manifest.instance_id, &manifest.backup_id];
    let expected = [key.project.to_string(), key.instance.to_string(), key.backup.to_string()];
    if ids != expected.each_ref() {
        return Err("its manifest is of another backup".to_owned());
    }
    let artifact = manifest.artifacts.first().ok_or("its manifest names no artifacts")?;
    let source = &artifact.source;
    let engine = EngineKind::ALL.into_iter().find(|kind| kind.as_str() == source.engine);
    // Older manifests name the source alone, which may have been a replica of the instance.
    let address = manifest.instance_address.as_ref().unwrap_or(&source.address);
    let (host, port) = address.rsplit_once(':').ok_or("its instance has no address")?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let dialect =
        RdbDialect::ALL.into_iter().find(|d| manifest.dialect.as_deref() == Some(d.as_str()));
    let trigger = match manifest.trigger.as_str() {
        "auto" => Trigger::Automatic,
        "safety" => Trigger::Safety,
        _ => Trigger::Manual,
    };
    Ok(StoredBackup {
        instance_name: manifest.instance_name.parse().map_err(|e| format!("{e}"))?,
        engine: engine.ok_or("its source is of an engine that is not known")?,
        server_version: source.server_version.parse().map_err(|e| format!("{e}"))?,
        address: Address { host, port: port.parse().map_err(|e| format!("its port: {e}"))? },
        backup: Backup {
            id: key.backup,
            project: key.project.clone(),
            instance: key.instance,
            trigger,
            format: BackupFormat::Rdb,
            dialect: dialect.unwrap_or_default(),
            note: manifest.note.as_deref().and_then(|note| note.parse::<Note>().ok()),
            window: manifest.window.clone(),
            state: BackupState::Succeeded,
            progress: Progress::DONE,
            received_bytes: manifest.rdb_bytes(),
            phase: None,
            size_bytes: manifest.rdb_bytes(),
            stored_attempt: Some(attempt.attempt),
            content: content_state(manifest),
            keys: key_count(manifest),
            failure: None,
            cancellation: None,
            attempt: None,
            proof: None,
            drill_failure: None,
            drilling: false,
            created_at: manifest.created_at,
            started_at: Some(manifest.started_at),
            completed_at: Some(manifest.completed_at),
            removal_requested_at: None,
            removed_at: None,
            check_requested_at: None,
            checked_at: None,
            damage: None,
            keep_until: manifest.keep_until,
            is_held: false,
            held_for: None,
        },
    })
}

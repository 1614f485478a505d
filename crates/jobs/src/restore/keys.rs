//! The part of a restore that touches the target, in the way `keys`.

use cachevault_domain::{
    ConflictRule, FailureCode, Restore, RestoreOptions, Target, TargetData, with_sources,
};
use cachevault_engine::{
    Comparison, KeysRequest, Loaded, Meter, PreparedKeys, ProofDemand, RestoreError, empty,
    load_keys, save,
};
use cachevault_store::{ArtifactEntry, ArtifactKey};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Checked, UNTOUCHED, as_step_error, demand, fail, later, plain};
use crate::step::{StepContext, StepError, output};

/// What is written into which target.
pub(super) struct ByKeys<'a> {
    pub(super) context: &'a StepContext<'a>,
    pub(super) target: &'a Target,
    pub(super) prepared: &'a PreparedKeys,
}

impl ByKeys<'_> {
    /// Writes a backup's keys. `is_again` says whether an earlier attempt may have written some.
    pub(super) async fn load(
        &self,
        restore: &Restore,
        (key, entry): (&ArtifactKey, &ArtifactEntry),
        captured_at: Timestamp,
        checked: &Checked,
        is_again: bool,
    ) -> Result<Loaded, StepError> {
        let limits = &self.context.settings.restore;
        let options = &restore.options;
        if is_again && matches!(options.conflict, ConflictRule::Skip | ConflictRule::Fail) {
            // What is there already may be ours, and half of a value.
            let reason = "the service ended while it wrote keys, and which of them were there before \
                          is not known any more; restore again";
            return Err(fail(FailureCode::RestoreSyncFailed, reason));
        }
        let applied = self.prepared.apply(self.target, limits).await;
        if applied.is_err() && !is_again {
            self.note_untouched().await?;
        }
        applied.map_err(as_step_error)?;
        let request = self.request(options, (key, entry), captured_at);
        let (meter, break_off) = (Meter::default(), self.context.cancel.child_token());
        meter.enter("writing keys");
        let loading = self.run(request, demand(checked, restore), &meter, &break_off);
        let loaded = self.context.reporting(&meter, &break_off, loading).await?;
        if loaded.is_err() && !meter.has_written() && !is_again {
            self.note_untouched().await?;
        }
        let loaded = loaded.map_err(as_step_error)?;
        self.prepared.put_back(self.target, limits).await.map_err(as_step_error)?;
        Ok(loaded)
    }

    /// Whatever failed did so before anything was written: only settings have to be put back.
    async fn note_untouched(&self) -> Result<(), StepError> {
        self.context.log_anew(UNTOUCHED, &output(&())).await.map_err(later)
    }

    fn request<'r>(
        &'r self,
        options: &'r RestoreOptions,
        (key, entry): (&'r ArtifactKey, &'r ArtifactEntry),
        captured_at: Timestamp,
    ) -> KeysRequest<'r> {
        KeysRequest {
            target: self.target,
            store: &*self.context.app.store,
            key,
            entry,
            options,
            now: self.context.app.clock.now(),
            captured_at,
            limits: self.context.settings.restore,
        }
    }

    async fn run(
        &self,
        request: KeysRequest<'_>,
        demand: ProofDemand,
        meter: &Meter,
        break_off: &CancellationToken,
    ) -> Result<Loaded, RestoreError> {
        let loaded = load_keys(request, meter, break_off).await?;
        let mut comparison = match demand {
            ProofDemand::None => Comparison::default(),
            demand => {
                meter.enter("reading the data back");
                request.prove(demand, self.context.gate, meter).await?
            }
        };
        comparison.empty = comparison.empty.max(loaded.empty);
        Ok(Loaded { comparison, keys: loaded.restored })
    }

    /// Puts back what the target held, if it was saved.
    pub(super) async fn take_back(
        &self,
        saved: Option<(ArtifactKey, ArtifactEntry)>,
        checked: &Checked,
    ) -> Result<TargetData, String> {
        let limits = &self.context.settings.restore;
        let text = |error: RestoreError| with_sources(&error);
        let is_untouched = self.context.is_logged(UNTOUCHED).await?;
        if !is_untouched {
            self.prepared.apply_to_take_back(self.target, limits).await.map_err(text)?;
        }
        let holds = match saved {
            _ if is_untouched => TargetData::Untouched,
            _ if checked.keys_before == 0 => match empty(self.target, limits).await {
                Err(error) if error.is_denial() => {
                    tracing::warn!(%error, "the target was empty, and does not let itself be emptied again");
                    TargetData::Uncertain
                }
                emptied => emptied.map(|()| TargetData::Old).map_err(text)?,
            },
            None => TargetData::Uncertain,
            Some((key, entry)) => {
                let old = (&key, &entry);
                let loaded = match self.put_old_data_back(old, ConflictRule::ReplaceAll).await? {
                    // What the restore has added stays then, and the comparison tells of it.
                    Err(error) if error.is_denial() => {
                        tracing::warn!(%error, "the target is not emptied; its old keys take the place of the new");
                        self.put_old_data_back(old, ConflictRule::Replace).await?
                    }
                    loaded => loaded,
                };
                let holds = match loaded {
                    Ok(_) => TargetData::Old,
                    // Clients may write all the time; doing it again would take away what they wrote.
                    Err(RestoreError::Differs { found, .. }) => {
                        tracing::warn!(
                            found,
                            "the old data was put back, and is not all that the target holds"
                        );
                        TargetData::Uncertain
                    }
                    Err(error) => return Err(with_sources(&error)),
                };
                match save(self.target, None, limits).await {
                    // It holds its old data; that its disk takes nothing was so before.
                    Err(RestoreError::NotDurable { .. }) | Ok(()) => {}
                    Err(error) => return Err(with_sources(&error)),
                }
                holds
            }
        };
        self.prepared.put_back(self.target, limits).await.map_err(text)?;
        Ok(holds)
    }

    async fn put_old_data_back(
        &self,
        old: (&ArtifactKey, &ArtifactEntry),
        conflict: ConflictRule,
    ) -> Result<Result<Loaded, RestoreError>, String> {
        let options = RestoreOptions { conflict, ..RestoreOptions::default() };
        // Expiries are kept, so the moment of the backup does not matter.
        let now = self.context.app.clock.now();
        let request = self.request(&options, old, now);
        // Not to be broken off: half of it would be worse than either.
        let (never, meter) = (CancellationToken::new(), Meter::default());
        meter.enter("putting the old data back");
        let loading = self.run(request, ProofDemand::IfPossible, &meter, &never);
        self.context.reporting(&meter, &never, loading).await.map_err(plain)
    }
}

//! What a restore by commands changes at the target beside its data, and how its data is proved.

use cachevault_domain::Target;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::gate::SourceGate;
use crate::info::ServerInfo;
use crate::meter::Meter;
use crate::restore::admin::Admin;
use crate::restore::error::RestoreError;
use crate::restore::keys_way::KeysRequest;
use crate::restore::prove::{Comparison, Proof, ProofDemand};
use crate::restore::replica_way::{
    ChangedSetting, RestoreLimits, lower, put_back, raise, save_now, still_primary, write_guards,
};

/// What has to be remembered of a restore by commands before the target is touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedKeys {
    /// The target's process.
    run_id: String,
    settings: Vec<ChangedSetting>,
    /// What keeps the target from taking back its old data; nothing in logs of before it was kept.
    #[serde(default)]
    write_guards: Vec<ChangedSetting>,
}

/// Looks what has to be changed at a target, and touches nothing.
///
/// # Errors
/// [`RestoreError`] when it does not answer.
pub async fn prepare_keys(
    target: &Target,
    limits: &RestoreLimits,
) -> Result<PreparedKeys, RestoreError> {
    // Keys that were written first would be evicted while the last ones come.
    const WANTED: (&str, &str) = ("maxmemory-policy", "noeviction");
    let mut admin = Admin::connect(target, limits.command).await?;
    let run_id = admin.info().await?.run_id;
    let settings = match admin.setting(WANTED.0).await {
        Ok(Some(before)) if before != WANTED.1 && admin.may_set().await? => {
            vec![ChangedSetting::new(WANTED.0, before, WANTED.1)]
        }
        Ok(_) => Vec::new(),
        // Who may not change settings goes without.
        Err(error) if error.is_denial() => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(PreparedKeys { run_id, settings, write_guards: write_guards(&mut admin).await? })
}

impl PreparedKeys {
    /// Makes the target ready.
    ///
    /// # Errors
    /// [`RestoreError`] when it refuses.
    pub async fn apply(&self, target: &Target, limits: &RestoreLimits) -> Result<(), RestoreError> {
        let mut admin = Admin::connect(target, limits.command).await?;
        for setting in &self.settings {
            match setting.apply(&mut admin).await {
                // Who may look at settings may still not change them, and goes without.
                Err(error) if error.is_denial() => return Ok(()),
                applied => applied?,
            }
        }
        Ok(())
    }

    /// As [`Self::apply`], to put back what the target held: whatever makes it refuse writes, and made
    /// the restore fail, must not make it keep half of the new data.
    ///
    /// # Errors
    /// [`RestoreError`] when it refuses.
    pub async fn apply_to_take_back(
        &self,
        target: &Target,
        limits: &RestoreLimits,
    ) -> Result<(), RestoreError> {
        self.apply(target, limits).await?;
        let mut admin = Admin::connect(target, limits.command).await?;
        lower(&mut admin, &self.write_guards).await
    }

    /// Puts the target's settings back.
    ///
    /// # Errors
    /// [`RestoreError`] when it refuses.
    pub async fn put_back(
        &self,
        target: &Target,
        limits: &RestoreLimits,
    ) -> Result<(), RestoreError> {
        let mut admin = Admin::connect(target, limits.command).await?;
        raise(&mut admin, &self.write_guards).await?;
        match put_back(&mut admin, &self.settings).await {
            // Then it was not changed either.
            Err(error) if error.is_denial() => Ok(()),
            done => done,
        }
    }
}

impl KeysRequest<'_> {
    /// Reads the target's data back and compares it with the backup's. Keys that expire soon are
    /// left out: the target may have let them go. What clients write meanwhile is a difference.
    ///
    /// # Errors
    /// [`RestoreError::Differs`]; others when it cannot be read back.
    pub async fn prove(
        &self,
        demand: ProofDemand,
        gate: &SourceGate,
        meter: &Meter,
    ) -> Result<Comparison, RestoreError> {
        let Self { target, store, key, entry, now, limits, .. } = *self;
        let proof = Proof { target, store, key, entry, gate, limits };
        demand.judge(proof.of_primary(now, meter).await)
    }
}

/// Empties a target that was empty before.
///
/// # Errors
/// [`RestoreError`] when it refuses.
pub async fn empty(target: &Target, limits: &RestoreLimits) -> Result<(), RestoreError> {
    let mut admin = Admin::connect(target, limits.command).await?;
    let info = admin.info().await?;
    // A server whose `FLUSHALL` was taken away has it only missed where there is something to flush.
    if info.keys > 0 {
        admin.command(&["FLUSHALL"]).await?;
    }
    if info.functions > 0 {
        admin.command(&["FUNCTION", "FLUSH"]).await?;
    }
    Ok(())
}

/// Whether a target saves nothing by itself: then it finds old data or none when it starts again,
/// as it did before.
pub(crate) async fn keeps_nothing(
    admin: &mut Admin,
    info: &ServerInfo,
) -> Result<bool, RestoreError> {
    if info.persistence.aof_enabled {
        return Ok(false);
    }
    match admin.setting("save").await {
        Ok(points) => Ok(points.is_none_or(|points| points.is_empty())),
        Err(error) if error.is_denial() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Has a target save what was written by commands, unless it keeps an AOF, which has it already.
/// `prepared` names the process that it was written into, if that is not the one that runs now.
///
/// # Errors
/// [`RestoreError::NotDurable`] when its save fails.
pub async fn save(
    target: &Target,
    prepared: Option<&PreparedKeys>,
    limits: &RestoreLimits,
) -> Result<(), RestoreError> {
    let mut admin = Admin::connect(target, limits.command).await?;
    let info = admin.info().await?;
    let run_id = prepared.map_or_else(|| info.run_id.clone(), |prepared| prepared.run_id.clone());
    still_primary(&info, &run_id, &target.address)?;
    if info.persistence.aof_enabled {
        return Ok(());
    }
    let until = Instant::now() + limits.busy_wait;
    let saved = match save_now(&mut admin, until).await {
        Err(error) if error.is_denial() => {
            tracing::warn!(target = %target.address, "the target may not be told to save; it saves when it would");
            return Ok(());
        }
        saved => saved?,
    };
    still_primary(&saved, &run_id, &target.address)?;
    if saved.persistence.save_ok || keeps_nothing(&mut admin, &saved).await? {
        return Ok(());
    }
    let detail = "its background save failed; see its log".to_owned();
    Err(RestoreError::NotDurable { address: target.address.clone(), detail })
}

//! What stands in the way of a part of a backup: found by reading it, as its report tells only of the whole.

use std::collections::BTreeSet;

use bytes::Bytes;
use cachevault_domain::{Blocker, ConflictRule, EngineKind};
use cachevault_rdb::raw::{Decoder, Key, Part, Visitor};
use cachevault_rdb::{DecodeError, DecodeErrorKind, Magic};
use cachevault_store::{ArtifactKey, Store};
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::error::VerifyError;
use crate::restore::admin::Admin;
use crate::restore::artifact::RdbReader;
use crate::restore::error::RestoreError;
use crate::restore::keys_way::Rules;
use crate::restore::plan::facts::{TargetFacts, look};
use crate::restore::plan::format::FormatCheck;
use crate::restore::plan::rights::Needed;
use crate::restore::plan::{PlanRequest, content, databases, lacking};

/// Pieces of the RDB that may wait for who looks at them.
const PIECES_MAX: usize = 2;
/// Names of modules that are told of.
const MODULES_MAX: usize = 64;
/// Databases that are looked at one by one; servers have 16 by default.
const DATABASES_MAX: usize = 4096;
/// The version in which modules keep data beside keys.
const METADATA_VERSION: u16 = 13;

/// Where a part of a backup is, and the moments that decide what of it has expired.
#[derive(Debug, Clone, Copy)]
pub struct PartRequest<'a> {
    /// The plan's own question.
    pub plan: PlanRequest<'a>,
    /// Where the artifact is.
    pub store: &'a dyn Store,
    /// The artifact.
    pub key: &'a ArtifactKey,
    /// The moment of the restore.
    pub now: Timestamp,
    /// The moment whose data the backup holds.
    pub captured_at: Timestamp,
}

/// Reads a backup and tells what stands in the way of writing the wanted part of it by commands, beside
/// what [`plan`](crate::plan) has told. Touches nothing.
///
/// # Errors
/// [`RestoreError`] when the target cannot be looked at, or the artifact not be read.
pub async fn check_part(request: PartRequest<'_>) -> Result<Vec<Blocker>, RestoreError> {
    let PartRequest { plan, store, key, now, captured_at } = request;
    let mut admin = Admin::connect(plan.target, plan.command).await?;
    let facts = look(&mut admin, databases(&content(plan.entry))).await?;
    let family = match facts.info.engine {
        EngineKind::Redis => Magic::Redis,
        EngineKind::Valkey => Magic::Valkey,
    };
    let rules = Rules::new(plan.options, now, captured_at);
    let (pieces, input) = mpsc::channel::<Bytes>(PIECES_MAX);
    let part = Wanted { rules, family, is_wanted: false, found: Found::default() };
    let looking = tokio::task::spawn_blocking(move || part.look(input));
    let mut reader = RdbReader::open(store, key, plan.entry).await?;
    while let Some(piece) = reader.next().await? {
        if pieces.send(piece).await.is_err() {
            // Who looks says itself why it left.
            break;
        }
    }
    drop(pieces);
    let found = looking.await.map_err(|e| VerifyError::Undecodable(e.to_string()))?;
    let found = found.map_err(|e| VerifyError::Undecodable(e.to_string()))?;
    Ok(found.blockers(&request, &facts))
}

/// What the wanted keys need.
#[derive(Debug, Default)]
struct Found {
    databases: BTreeSet<u64>,
    /// The least version of the target's family whose servers take the values by commands; beside it
    /// whether some value is taken by none.
    least_version: u16,
    is_of_others: bool,
    /// Whether hashes are written by several commands.
    has_hashes_by_commands: bool,
    modules: BTreeSet<String>,
}

impl Found {
    fn blockers(&self, request: &PartRequest<'_>, facts: &TargetFacts) -> Vec<Blocker> {
        let mut blockers = Vec::new();
        if let (Some(&highest), Some(has)) = (self.databases.last(), facts.databases)
            && highest >= has
        {
            blockers.push(Blocker::Databases { highest, has });
        }
        let replaces = request.plan.options.conflict != ConflictRule::Skip
            && request.plan.options.conflict != ConflictRule::Fail;
        blockers.extend(facts.rights.denied(|needed| match needed {
            Needed::ForDatabase(database) => self.databases.contains(&database),
            Needed::ForFieldExpiries | Needed::ForPartsOf("hash") | Needed::ForParts => {
                self.has_hashes_by_commands
            }
            Needed::ToReplaceByParts => replaces && self.has_hashes_by_commands,
            _ => false,
        }));
        let content = content(request.plan.entry);
        let format = FormatCheck::new(&request.plan, &facts.info, &content);
        if !format.takes(self.least_version) || self.is_of_others {
            blockers.push(format.refused_part((!self.is_of_others).then_some(self.least_version)));
        }
        let names = lacking(self.modules.iter(), facts);
        if !names.is_empty() {
            blockers.push(Blocker::Modules { names });
        }
        blockers
    }
}

/// Looks at the wanted keys that pass.
struct Wanted {
    rules: Rules,
    family: Magic,
    is_wanted: bool,
    found: Found,
}

impl Wanted {
    /// Takes all pieces. It blocks its thread.
    fn look(mut self, mut pieces: mpsc::Receiver<Bytes>) -> Result<Found, DecodeError> {
        let mut decoder = Decoder::default();
        while let Some(piece) = pieces.blocking_recv() {
            decoder.feed(&piece, &mut self)?;
        }
        Ok(self.found)
    }
}

impl Visitor for Wanted {
    fn key(&mut self, key: &Key<'_>) -> Result<(), DecodeErrorKind> {
        let is_over = self.rules.expiry(key.expires_at_ms).is_err();
        self.is_wanted = !is_over && self.rules.wants(key.db, key.name);
        if !self.is_wanted {
            return Ok(());
        }
        let found = &mut self.found;
        if found.databases.len() < DATABASES_MAX {
            found.databases.insert(key.db);
        }
        let least = match key.value_type.is_by_template() {
            // Written as a plain hash where the target has no templates.
            true => Some(1),
            false => key.value_type.least_version_by_commands(self.family),
        };
        match least {
            Some(version) => found.least_version = found.least_version.max(version),
            None => found.is_of_others = true,
        }
        if !key.metadata.is_empty() {
            found.least_version = found.least_version.max(METADATA_VERSION);
        }
        let family = key.value_type.family();
        let is_by_commands =
            family.is_some_and(|f| f != self.family) || self.rules.moves_expiries();
        found.has_hashes_by_commands |= key.value_type.has_field_expiries() && is_by_commands;
        Ok(())
    }

    fn part(&mut self, part: Part<'_>) -> Result<(), DecodeErrorKind> {
        if let (true, Part::ModuleValue(module)) = (self.is_wanted, part)
            && self.found.modules.len() < MODULES_MAX
        {
            self.found.modules.insert(module.name());
        }
        Ok(())
    }
}

//! Restores: the record of putting a backup's data into an instance, and the chart of its states.

use jiff::Timestamp;

use crate::{
    Attempt, BackupId, Cancellation, Failure, InstanceId, InstanceName, JobId, Note, Progress,
    ProjectId, RestoreId,
};

/// The longest pattern of a [`KeyFilter`], in bytes.
pub const KEY_PATTERN_BYTES_MAX: usize = 1024;

/// The pattern is longer than [`KEY_PATTERN_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key pattern has at most 1024 bytes")]
pub struct PatternTooLong;

/// How the data gets into the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RestoreWay {
    /// We act as the target's primary, and it loads the RDB as a replica does.
    Replica,
    /// A `RESTORE` command for every key.
    Keys,
}

impl RestoreWay {
    /// Every way.
    pub const ALL: [Self; 2] = [Self::Replica, Self::Keys];

    /// Its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::Keys => "keys",
        }
    }
}

/// What becomes of the keys' moments of expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TtlRule {
    /// The moments stay: what has expired since the backup does not come back.
    #[default]
    Keep,
    /// The moments move by the age of the backup: every key lives on as long as it had left then.
    Shift,
    /// No key expires.
    Strip,
}

impl TtlRule {
    /// Every rule.
    pub const ALL: [Self; 3] = [Self::Keep, Self::Shift, Self::Strip];

    /// Its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Shift => "shift",
            Self::Strip => "strip",
        }
    }
}

/// What becomes of the data that the target holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ConflictRule {
    /// All of it goes: afterwards the target holds what the backup holds and nothing else.
    #[default]
    ReplaceAll,
    /// It stays, but a key of the backup replaces the target's key of the same name.
    Replace,
    /// It stays, and the target's key wins over the backup's key of the same name.
    Skip,
    /// It stays, and the first key that both have fails the restore.
    Fail,
}

impl ConflictRule {
    /// Every rule.
    pub const ALL: [Self; 4] = [Self::ReplaceAll, Self::Replace, Self::Skip, Self::Fail];

    /// Its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReplaceAll => "replace_all",
            Self::Replace => "replace",
            Self::Skip => "skip",
            Self::Fail => "fail",
        }
    }
}

/// Which keys of a backup are wanted; by default every one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyFilter {
    /// With a name that this glob matches.
    pub pattern: Option<String>,
    /// In this database.
    pub database: Option<u32>,
}

impl KeyFilter {
    /// A filter from what somebody asked for.
    ///
    /// # Errors
    /// [`PatternTooLong`] above [`KEY_PATTERN_BYTES_MAX`].
    pub fn new(pattern: Option<String>, database: Option<u32>) -> Result<Self, PatternTooLong> {
        if pattern.as_ref().is_some_and(|pattern| pattern.len() > KEY_PATTERN_BYTES_MAX) {
            return Err(PatternTooLong);
        }
        Ok(Self { pattern, database })
    }

    /// Whether it lets every key through.
    pub fn is_everything(&self) -> bool {
        self.database.is_none() && self.pattern.as_deref().is_none_or(|pattern| pattern == "*")
    }
}

/// How a restore is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreOptions {
    /// How the data gets into the target; `None` leaves it to the plan.
    pub way: Option<RestoreWay>,
    /// Whether the target is backed up first.
    pub safety_backup: bool,
    /// Whether the target's data is compared with the backup's afterwards; `None` lets the size
    /// decide.
    pub prove: Option<bool>,
    /// Whether the target keeps its old data in memory until the new is loaded; `None` leaves it
    /// to the plan.
    pub swap: Option<bool>,
    /// What becomes of the keys' moments of expiry.
    pub ttl: TtlRule,
    /// Which keys are wanted.
    pub filter: KeyFilter,
    /// What becomes of the data that the target holds already.
    pub conflict: ConflictRule,
    /// Whether a backup whose content is not verified may be restored: by native loading alone, into
    /// a server of the same vendor whose version is at least the source's.
    pub unverified: bool,
    /// Memory that the data needs, bytes, by who knows it better than the estimate.
    pub needed_bytes: Option<u64>,
}

impl Default for RestoreOptions {
    /// The target becomes what the backup is, after a safety backup.
    fn default() -> Self {
        Self {
            way: None,
            safety_backup: true,
            prove: None,
            swap: None,
            ttl: TtlRule::default(),
            filter: KeyFilter::default(),
            conflict: ConflictRule::default(),
            unverified: false,
            needed_bytes: None,
        }
    }
}

/// The states of a restore.
///
/// ```text
/// Waiting ──Started──► Running ──Finished──► Succeeded
///    │                  │  ▲ └─Started (a later attempt)
///    └──────Failed──────┴──┘►Failed
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RestoreState {
    /// Recorded; no worker has it yet.
    Waiting,
    /// A worker has begun with it.
    Running,
    /// The target holds what was asked for.
    Succeeded,
    /// It does not; what it holds instead is in the [`RestoreOutcome`].
    Failed,
}

/// What can happen to a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreEvent {
    /// A worker began an attempt.
    Started,
    /// The target holds the data and serves it.
    Finished,
    /// The last attempt failed.
    Failed,
}

impl RestoreEvent {
    /// Every event.
    pub const ALL: [Self; 3] = [Self::Started, Self::Finished, Self::Failed];
}

/// The event cannot happen to a restore in this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a restore in state {from:?} cannot take the event {event:?}")]
pub struct InvalidRestoreTransition {
    /// The state.
    pub from: RestoreState,
    /// The event.
    pub event: RestoreEvent,
}

impl RestoreState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Running, Self::Succeeded, Self::Failed];

    /// The state after `event`.
    ///
    /// # Errors
    /// [`InvalidRestoreTransition`] where the chart has no such arrow.
    pub fn apply(self, event: RestoreEvent) -> Result<Self, InvalidRestoreTransition> {
        use RestoreEvent as E;
        match (self, event) {
            // An attempt after a crash starts again what is already running.
            (Self::Waiting | Self::Running, E::Started) => Ok(Self::Running),
            (Self::Running, E::Finished) => Ok(Self::Succeeded),
            (Self::Waiting | Self::Running, E::Failed) => Ok(Self::Failed),
            (from, event) => Err(InvalidRestoreTransition { from, event }),
        }
    }

    /// The state's name in lower case, as our own API and the catalog write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing more happens to it.
    pub fn is_settled(self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }
}

/// What the target holds after a restore ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetData {
    /// What it held before: the restore wrote nothing.
    Untouched,
    /// What was asked for.
    New,
    /// What it held before: put back from the safety backup, or never lost.
    Old,
    /// Nobody knows: perhaps a part of either, perhaps nothing.
    Uncertain,
}

impl TargetData {
    /// Every case.
    pub const ALL: [Self; 4] = [Self::Untouched, Self::New, Self::Old, Self::Uncertain];

    /// Its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Untouched => "untouched",
            Self::New => "new",
            Self::Old => "old",
            Self::Uncertain => "uncertain",
        }
    }
}

/// How a restore ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreOutcome {
    /// The way that was taken; `None` when it ended before one was.
    pub way: Option<RestoreWay>,
    /// What the target holds.
    pub target: TargetData,
    /// How long the target did not serve its clients, milliseconds; `None` where not measured.
    pub unavailable_ms: Option<u64>,
    /// Whether the target's data was compared with the backup's and is the same.
    pub proven: bool,
    /// Why the data was not compared, where it should have been, or which of it was left out.
    pub unproven: Option<String>,
    /// Values of modules that were counted, and not compared.
    pub uncompared: u64,
    /// How many keys were put into the target; `None` where not counted.
    pub keys: Option<u64>,
}

impl RestoreOutcome {
    /// Of one that ended before its target was touched.
    pub fn untouched() -> Self {
        Self {
            way: None,
            target: TargetData::Untouched,
            unavailable_ms: None,
            proven: false,
            unproven: None,
            uncompared: 0,
            keys: None,
        }
    }
}

/// The record of putting a backup's data into an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    /// Its id.
    pub id: RestoreId,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// The target: the instance that gets the data.
    pub instance: InstanceId,
    /// The backup that the data comes from.
    pub backup: BackupId,
    /// When that backup was asked for.
    pub backup_created_at: Timestamp,
    /// A person's words about that backup.
    pub backup_note: Option<Note>,
    /// The instance that the backup copies; perhaps another than the target.
    pub source_instance: InstanceId,
    /// That instance's name.
    pub source_instance_name: InstanceName,
    /// How it is wanted.
    pub options: RestoreOptions,
    /// A person's words about it.
    pub note: Option<Note>,
    /// Where it is on the chart.
    pub state: RestoreState,
    /// How far it is; never goes back.
    pub progress: Progress,
    /// What the worker is doing now, or waiting for; `None` when settled.
    pub phase: Option<String>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Who wanted it to end before it was done; it may have failed for another reason first.
    pub cancellation: Option<Cancellation>,
    /// Which attempt at it this is; `None` once it has ended.
    pub attempt: Option<Attempt>,
    /// When its target was about to be touched: from then on it is no longer cancelled.
    pub touched_at: Option<Timestamp>,
    /// The backup of the target that was made before anything was written to it.
    pub safety_backup: Option<BackupId>,
    /// How it ended; `None` until settled.
    pub outcome: Option<RestoreOutcome>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its first attempt began.
    pub started_at: Option<Timestamp>,
    /// When it succeeded or failed.
    pub completed_at: Option<Timestamp>,
}

/// A restore that is being asked for, with the job that will do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRestore {
    /// The new restore's id.
    pub id: RestoreId,
    /// The id of the job that will do it.
    pub job: JobId,
    /// The project that asks.
    pub project: ProjectId,
    /// The target: the instance that gets the data.
    pub instance: InstanceId,
    /// The backup that the data comes from.
    pub backup: BackupId,
    /// How it is wanted.
    pub options: RestoreOptions,
    /// A person's words about it.
    pub note: Option<Note>,
    /// The moment of asking.
    pub created_at: Timestamp,
}

/// The backup of its target that a restore is about to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSafetyBackup {
    /// The new backup's id.
    pub id: BackupId,
    /// Words about it.
    pub note: Option<Note>,
    /// The moment of its creation.
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_chart_is_what_it_says() {
        let mut chart = String::new();
        for state in RestoreState::ALL {
            for event in RestoreEvent::ALL {
                let to = state.apply(event).map_or("-", RestoreState::as_str);
                chart += &format!("{:<9} {event:?} {to}\n", state.as_str());
            }
        }
        assert_eq!(
            chart,
            "\
waiting   Started running
waiting   Finished -
waiting   Failed failed
running   Started running
running   Finished succeeded
running   Failed failed
succeeded Started -
succeeded Finished -
succeeded Failed -
failed    Started -
failed    Finished -
failed    Failed -
"
        );
    }

    #[test]
    fn what_nobody_chose_replaces_everything_after_a_safety_backup() {
        let options = RestoreOptions::default();
        assert!(options.safety_backup && options.filter.is_everything());
        assert!(!options.unverified);
        assert_eq!(
            (options.way, options.prove, options.swap, options.needed_bytes),
            (None, None, None, None)
        );
        assert_eq!((options.ttl, options.conflict), (TtlRule::Keep, ConflictRule::ReplaceAll));
    }

    #[test]
    fn a_pattern_is_counted_in_bytes() {
        assert!(KeyFilter::new(Some("é".repeat(512)), None).is_ok());
        assert_eq!(KeyFilter::new(Some("é".repeat(513)), None), Err(PatternTooLong));
    }

    #[test]
    fn a_filter_that_leaves_keys_out_is_not_everything() {
        let filter = |pattern: Option<&str>, database| {
            KeyFilter::new(pattern.map(Into::into), database).unwrap().is_everything()
        };
        assert!(filter(None, None) && filter(Some("*"), None));
        // The empty pattern matches only the key without a name.
        assert!(!filter(Some(""), None) && !filter(Some("a*"), None) && !filter(None, Some(0)));
    }

    fn names_are_distinct<T: Copy>(all: &[T], name: fn(T) -> &'static str) {
        let names: std::collections::HashSet<_> = all.iter().copied().map(name).collect();
        assert_eq!(names.len(), all.len());
    }

    #[test]
    fn no_two_words_of_a_kind_are_the_same() {
        names_are_distinct(&RestoreWay::ALL, RestoreWay::as_str);
        names_are_distinct(&TtlRule::ALL, TtlRule::as_str);
        names_are_distinct(&ConflictRule::ALL, ConflictRule::as_str);
        names_are_distinct(&RestoreState::ALL, RestoreState::as_str);
        names_are_distinct(&TargetData::ALL, TargetData::as_str);
    }

    proptest! {
        #[test]
        fn a_settled_restore_stays_as_it_is(
            events in proptest::collection::vec(proptest::sample::select(&RestoreEvent::ALL[..]), 0..12),
        ) {
            let mut state = RestoreState::Waiting;
            let mut started = false;
            for event in events {
                match state.apply(event) {
                    Ok(next) => {
                        prop_assert!(!state.is_settled());
                        started |= event == RestoreEvent::Started;
                        state = next;
                    }
                    Err(refused) => {
                        prop_assert_eq!(refused, InvalidRestoreTransition { from: state, event });
                        prop_assert!(state.is_settled() || event == RestoreEvent::Finished);
                    }
                }
            }
            prop_assert!(state != RestoreState::Succeeded || started);
        }
    }
}

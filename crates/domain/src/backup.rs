//! Backups: the record of one copy of an instance's data, and the chart of its states.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::{
    Address, Attempt, BackupId, DrillFailure, EngineKind, InstanceId, InstanceName, JobId,
    ProjectId, Proof, ServerVersion,
};

/// The longest note, in Unicode scalar values.
pub const NOTE_CHARS_MAX: usize = 128;

/// The note is longer than [`NOTE_CHARS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a note has at most 128 characters")]
pub struct NoteTooLong;

/// Free text that a person attached to a backup or restore: 0 to 128 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note(String);

impl Note {
    /// The note's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Note {
    type Err = NoteTooLong;

    fn from_str(text: &str) -> Result<Self, NoteTooLong> {
        if text.chars().count() > NOTE_CHARS_MAX {
            Err(NoteTooLong)
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

/// What made a backup start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Somebody asked for it.
    Manual,
    /// A policy was due.
    Automatic,
    /// A restore needed a copy of its target before it wrote there.
    Safety,
}

impl Trigger {
    /// Every trigger.
    pub const ALL: [Self; 3] = [Self::Manual, Self::Automatic, Self::Safety];

    /// Its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Automatic => "automatic",
            Self::Safety => "safety",
        }
    }
}

/// The kind of file that a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupFormat {
    /// A snapshot.
    Rdb,
}

impl BackupFormat {
    /// Every format.
    pub const ALL: [Self; 1] = [Self::Rdb];

    /// Its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rdb => "rdb",
        }
    }
}

/// Which RDB version to ask the source for, where it lets us choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RdbDialect {
    /// The source's own newest version: holds everything that the source holds.
    #[default]
    Native,
    /// RDB 11, which Redis 7.2 and Valkey 8 load too. Valkey 9 fails the capture when it holds
    /// hash fields with expiry, which that version cannot express.
    Portable,
}

impl RdbDialect {
    /// Every dialect.
    pub const ALL: [Self; 2] = [Self::Native, Self::Portable];

    /// Its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Portable => "portable",
        }
    }
}

/// Whether the content of a backup was verified when it was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ContentState {
    /// Not known: the backup has not succeeded, or was made before this was recorded.
    #[default]
    Unknown,
    /// Every byte was followed, and the data has a digest.
    Verified,
    /// The RDB is complete, but of a format that this service did not know.
    Opaque,
}

impl ContentState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Unknown, Self::Verified, Self::Opaque];

    /// Its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Verified => "verified",
            Self::Opaque => "opaque",
        }
    }
}

/// What a capture has stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFiles {
    /// The attempt whose files are the backup.
    pub attempt: u32,
    /// Size of the RDB in them, bytes.
    pub size_bytes: u64,
    /// Whether its content was verified.
    pub content: ContentState,
    /// Why the content is opaque; `None` where it is not, or no reason is known.
    pub opaque_because: Option<String>,
    /// How many keys it holds; `None` where they were not counted.
    pub keys: Option<u64>,
}

/// The reasons that the DCS API knows for a failed backup or restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureCode {
    /// The transfer could not be started, or broke off: `dcs.08.0001`.
    ToolFailed,
    /// A deadline passed: `dcs.08.0002`.
    TimedOut,
    /// Stored files could not be removed: `dcs.08.0003`.
    RemovalFailed,
    /// The store's credentials could not be had: `dcs.08.0004`.
    StoreCredentials,
    /// The store could not be made ready to write: `dcs.08.0005`.
    StoreUnusable,
    /// The stored file's size or content could not be confirmed: `dcs.08.0006`.
    SizeUnconfirmed,
    /// Data could not be put into the target of a restore: `dcs.08.0007`.
    RestoreSyncFailed,
    /// An automatic backup found the instance busy: `dcs.08.0008`.
    InstanceBusy,
}

impl FailureCode {
    /// Every code, in the vendor's order.
    pub const ALL: [Self; 8] = [
        Self::ToolFailed,
        Self::TimedOut,
        Self::RemovalFailed,
        Self::StoreCredentials,
        Self::StoreUnusable,
        Self::SizeUnconfirmed,
        Self::RestoreSyncFailed,
        Self::InstanceBusy,
    ];

    /// The code's name in lower case, as our own API and the catalog write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ToolFailed => "tool_failed",
            Self::TimedOut => "timed_out",
            Self::RemovalFailed => "removal_failed",
            Self::StoreCredentials => "store_credentials",
            Self::StoreUnusable => "store_unusable",
            Self::SizeUnconfirmed => "size_unconfirmed",
            Self::RestoreSyncFailed => "restore_sync_failed",
            Self::InstanceBusy => "instance_busy",
        }
    }

    /// What an operator can do about it, in a sentence or two. The reason of a [`Failure`] says what
    /// happened; `docs/codes.md` says more of both.
    pub fn hint(self) -> &'static str {
        match self {
            Self::ToolFailed => {
                "Check that the instance runs, that the service reaches it, and that its user may \
                 replicate; its log names the reason. Then ask again."
            }
            Self::TimedOut => {
                "Find out what the instance was busy with, or give it longer: `capture_timeout`, \
                 `busy_timeout`, `stall_timeout` or `restore_timeout`."
            }
            Self::RemovalFailed => {
                "Make the store allow removals again. The removal goes on by itself, and this is gone \
                 when the files are."
            }
            Self::StoreCredentials => {
                "Give the service a key that may write, read, list and remove in the store \
                 (`store_credentials_file`), or the owner of the folder that right; then ask again."
            }
            Self::StoreUnusable => {
                "Check that the store runs, that its bucket or folder is there, and that the service \
                 reaches it (`/readyz` tells); then ask again."
            }
            Self::SizeUnconfirmed => {
                "If the store is full, make room. If a stored file is damaged or missing, use another \
                 backup, and look for the reason in the store."
            }
            Self::RestoreSyncFailed => {
                "Look at `target_data` of the restore for what the target holds now, and at the \
                 target's log for why it stopped loading; then restore again."
            }
            Self::InstanceBusy => {
                "Nothing, if it was busy for once: it is tried again while the window lasts. Else \
                 move the window, or make it longer; if no service ran, let one run in the window."
            }
        }
    }
}

/// Why a backup or a restore failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason as the DCS API knows it.
    pub code: FailureCode,
    /// The reason in words, for an operator: what happened, to what, and what to do.
    pub reason: String,
}

/// Somebody's wish that a backup or a restore ends before it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancellation {
    /// Who asked for it, such as `user ada`.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

impl Cancellation {
    /// What the record says when it has ended for this reason.
    pub fn failure(&self) -> Failure {
        // Of the vendor's codes this is the one for a transfer that did not come to its end.
        Failure { code: FailureCode::ToolFailed, reason: format!("cancelled by {}", self.by) }
    }
}

/// How much of a job is done, in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Progress(u16);

impl Progress {
    /// Nothing done yet.
    pub const NONE: Self = Self(0);
    /// Everything done.
    pub const DONE: Self = Self(10_000);
    /// The most that unfinished work may show.
    pub const ALMOST: Self = Self(9_900);

    /// `done` of `total`, never more than [`Progress::ALMOST`]; nothing when the total is unknown.
    pub fn of(done: u64, total: u64) -> Self {
        if total == 0 {
            return Self::NONE;
        }
        let share = u128::from(done) * u128::from(Self::DONE.0) / u128::from(total);
        u16::try_from(share).map_or(Self::ALMOST, Self).min(Self::ALMOST)
    }

    /// From hundredths of a percent; more than 10,000 counts as all.
    pub fn from_hundredths(hundredths: u16) -> Self {
        Self(hundredths).min(Self::DONE)
    }

    /// In hundredths of a percent, 0 to 10,000.
    pub fn hundredths(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Progress {
    /// Percent with two decimals: `0.00` to `100.00`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// The states of a backup.
///
/// ```text
/// Waiting ──Started──► Running ──Finished──► Succeeded ──Expired──► Expired
///    │                  │  ▲ └─Started (a later attempt)  │
///    └──────Failed──────┴──┘►Failed ────────Removed───────┴────────► Deleted
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackupState {
    /// Recorded; no worker has it yet.
    Waiting,
    /// A worker has begun with it.
    Running,
    /// Its files are in the store and checked.
    Succeeded,
    /// It holds no files.
    Failed,
    /// Its time was over; the files are removed.
    Expired,
    /// Somebody deleted it; the files are removed.
    Deleted,
}

/// What can happen to a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupEvent {
    /// A worker began an attempt.
    Started,
    /// The manifest is in the store.
    Finished,
    /// The last attempt failed.
    Failed,
    /// Retention removed its files.
    Expired,
    /// A person's wish removed its files.
    Removed,
}

/// The event cannot happen in this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a backup in state {from:?} cannot take the event {event:?}")]
pub struct InvalidTransition {
    /// The state.
    pub from: BackupState,
    /// The event.
    pub event: BackupEvent,
}

impl BackupState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Waiting, Self::Running, Self::Succeeded, Self::Failed, Self::Expired, Self::Deleted];

    /// The state after `event`.
    ///
    /// # Errors
    /// [`InvalidTransition`] where the chart has no such arrow.
    pub fn apply(self, event: BackupEvent) -> Result<Self, InvalidTransition> {
        use BackupEvent as E;
        match (self, event) {
            // An attempt after a crash starts again what is already running.
            (Self::Waiting | Self::Running, E::Started) => Ok(Self::Running),
            (Self::Running, E::Finished) => Ok(Self::Succeeded),
            (Self::Waiting | Self::Running, E::Failed) => Ok(Self::Failed),
            (Self::Succeeded, E::Expired) => Ok(Self::Expired),
            (Self::Succeeded | Self::Failed, E::Removed) => Ok(Self::Deleted),
            (from, event) => Err(InvalidTransition { from, event }),
        }
    }

    /// The state's name in lower case, as our own API and the catalog write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Deleted => "deleted",
        }
    }

    /// Whether nothing more happens to it by itself.
    pub fn is_settled(self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }
}

/// The record of one copy of an instance's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its id.
    pub id: BackupId,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// The instance that it copies.
    pub instance: InstanceId,
    /// What made it start.
    pub trigger: Trigger,
    /// The kind of file.
    pub format: BackupFormat,
    /// The RDB version that was asked for.
    pub dialect: RdbDialect,
    /// A person's words about it.
    pub note: Option<Note>,
    /// The window of an automatic backup, such as `22:00-23:00`.
    pub window: Option<String>,
    /// Where it is on the chart.
    pub state: BackupState,
    /// How far the running attempt is; never goes back.
    pub progress: Progress,
    /// RDB bytes received so far by the running attempt.
    pub received_bytes: u64,
    /// What the worker is doing now, or waiting for; `None` when settled.
    pub phase: Option<String>,
    /// Size of its RDB, bytes; 0 until it succeeded.
    pub size_bytes: u64,
    /// The attempt whose files are the backup; `None` until it succeeded.
    pub stored_attempt: Option<u32>,
    /// Whether its content was verified when it was captured.
    pub content: ContentState,
    /// How many keys it holds; `None` until it succeeded, and where they were not counted.
    pub keys: Option<u64>,
    /// Why it failed; of one that has files, why they cannot be removed.
    pub failure: Option<Failure>,
    /// Who wanted it to end before it was done; it may have failed for another reason first.
    pub cancellation: Option<Cancellation>,
    /// What the newest drill that succeeded has proven. A later one that fails takes nothing away:
    /// it may have been the drill's own server that failed.
    pub proof: Option<Proof>,
    /// Why the last drill failed; gone once a later one proves the backup.
    pub drill_failure: Option<DrillFailure>,
    /// Whether a drill of it is open.
    pub drilling: bool,
    /// Which attempt at it this is; `None` once it has ended.
    pub attempt: Option<Attempt>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its first attempt began.
    pub started_at: Option<Timestamp>,
    /// When it succeeded or failed.
    pub completed_at: Option<Timestamp>,
    /// When its removal was asked for; from then on nothing may be restored from it.
    pub removal_requested_at: Option<Timestamp>,
    /// When its files were removed.
    pub removed_at: Option<Timestamp>,
    /// Since when a check of its files is asked for that was not made yet.
    pub check_requested_at: Option<Timestamp>,
    /// When its files were last read again and compared with its manifest.
    pub checked_at: Option<Timestamp>,
    /// What was wrong with them then.
    pub damage: Option<String>,
    /// Until when it is kept at least; `None` where that was not fixed, so that only the number of
    /// backups can end it.
    pub keep_until: Option<Timestamp>,
    /// Whether it may not be removed.
    pub is_held: bool,
    /// The backup that held far fewer keys and for which the service holds this one; `None` where it
    /// is not held, or a person has asked for it.
    pub held_for: Option<BackupId>,
}

impl Backup {
    /// Whether it has files that will stay, sound or not.
    pub fn has_files(&self) -> bool {
        self.state == BackupState::Succeeded && self.removal_requested_at.is_none()
    }

    /// Whether a restore from it can work by default: its files are there, will stay, and are not
    /// known to be damaged, and its content is not opaque.
    pub fn is_restorable(&self) -> bool {
        self.is_restorable_unverified() && self.content != ContentState::Opaque
    }

    /// Whether a restore from it can work with [`RestoreOptions::unverified`]: its files are there,
    /// will stay, and are not known to be damaged.
    ///
    /// [`RestoreOptions::unverified`]: crate::RestoreOptions::unverified
    pub fn is_restorable_unverified(&self) -> bool {
        self.has_files() && self.damage.is_none()
    }
}

/// A backup as a store alone tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBackup {
    /// The name of its instance at the time.
    pub instance_name: InstanceName,
    /// What ran there.
    pub engine: EngineKind,
    /// Its version.
    pub server_version: ServerVersion,
    /// Where it was.
    pub address: Address,
    /// The record.
    pub backup: Backup,
}

/// A backup that is being asked for, with the job that will make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBackup {
    /// The new backup's id.
    pub id: BackupId,
    /// The id of the job that will make it.
    pub job: JobId,
    /// The project that asks.
    pub project: ProjectId,
    /// The instance to copy.
    pub instance: InstanceId,
    /// What made it start.
    pub trigger: Trigger,
    /// The kind of file.
    pub format: BackupFormat,
    /// The RDB version to ask for.
    pub dialect: RdbDialect,
    /// A person's words about it.
    pub note: Option<Note>,
    /// The moment of asking.
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_chart_is_what_it_says() {
        use BackupEvent as E;
        let mut chart = String::new();
        for state in BackupState::ALL {
            for event in [E::Started, E::Finished, E::Failed, E::Expired, E::Removed] {
                let to = state.apply(event).map_or("-", BackupState::as_str);
                chart += &format!("{:<9} {event:?} {to}\n", state.as_str());
            }
        }
        assert_eq!(
            chart,
            "\
waiting   Started running
waiting   Finished -
waiting   Failed failed
waiting   Expired -
waiting   Removed -
running   Started running
running   Finished succeeded
running   Failed failed
running   Expired -
running   Removed -
succeeded Started -
succeeded Finished -
succeeded Failed -
succeeded Expired expired
succeeded Removed deleted
failed    Started -
failed    Finished -
failed    Failed -
failed    Expired -
failed    Removed deleted
expired   Started -
expired   Finished -
expired   Failed -
expired   Expired -
expired   Removed -
deleted   Started -
deleted   Finished -
deleted   Failed -
deleted   Expired -
deleted   Removed -
"
        );
    }

    #[test]
    fn a_note_is_counted_in_characters_not_bytes() {
        assert!("é".repeat(128).parse::<Note>().is_ok());
        assert_eq!("é".repeat(129).parse::<Note>(), Err(NoteTooLong));
    }

    #[test]
    fn progress_prints_two_decimals() {
        assert_eq!(Progress::NONE.to_string(), "0.00");
        assert_eq!(Progress::of(1, 3).to_string(), "33.33");
        assert_eq!(Progress::DONE.to_string(), "100.00");
    }

    proptest! {
        #[test]
        fn unfinished_work_never_shows_a_hundred(done: u64, total: u64) {
            prop_assert!(Progress::of(done, total) <= Progress::ALMOST);
        }

        #[test]
        fn progress_never_falls_as_work_is_done(total in 1u64.., a: u64, b: u64) {
            prop_assert!(Progress::of(a.min(b), total) <= Progress::of(a.max(b), total));
        }
    }
}

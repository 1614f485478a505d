//! What has happened to instances, backups, restores and the service: one record for each fact.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::{BackupId, InstanceId, InstanceName, ProjectId, RestoreId};

/// The longest detail of an event that is recorded, characters; more is cut.
pub const EVENT_DETAIL_CHARS_MAX: usize = 512;

/// The place of an event among all of one catalog: a later event has a higher number. Numbers of
/// events that one project sees have gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventId(u64);

impl EventId {
    /// Before every event.
    pub const ZERO: Self = Self(0);
    /// The highest that there can be: catalogs count in signed numbers of 64 bits.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// The event of this number; [`EventId::MAX`] for what is higher.
    pub fn new(number: u64) -> Self {
        Self(number.min(Self::MAX.0))
    }

    /// Its number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is not the number of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is named by a number, 0 to {max}", max = EventId::MAX)]
pub struct InvalidEventId;

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        let plain = (1..=19).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let number: Option<u64> = plain.then(|| text.parse().ok()).flatten();
        number.map(Self).filter(|id| *id <= Self::MAX).ok_or(InvalidEventId)
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $word:literal,)+) => {
        /// What an event tells.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventKind {
            $($(#[$doc])* $kind,)+
        }

        impl EventKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind,)+];

            /// The word for it, in the catalog and for clients.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $word,)+
                }
            }
        }
    };
}

kinds! {
    /// Somebody, or a policy, has asked for a backup.
    BackupRequested = "backup_requested",
    /// A worker has begun a backup.
    BackupStarted = "backup_started",
    /// A backup is stored and verified.
    BackupSucceeded = "backup_succeeded",
    /// A backup is stored, and its content is not verified; the detail says why.
    BackupOpaque = "backup_opaque",
    /// A backup holds far fewer keys than the last good one, which is held until it is released; the
    /// detail says how many, and which.
    BackupShrunk = "backup_shrunk",
    /// A backup has failed; the detail says why.
    BackupFailed = "backup_failed",
    /// A backup was ended because somebody asked for it; the detail says who.
    BackupCancelled = "backup_cancelled",
    /// The files of a backup were removed because its time was over, or there were too many.
    BackupExpired = "backup_expired",
    /// The files of a backup were removed because somebody asked for it.
    BackupDeleted = "backup_deleted",
    /// Stored files of a backup were found damaged; the detail says how.
    BackupDamaged = "backup_damaged",
    /// No backup was made in a window of a policy, because no service ran.
    WindowMissed = "window_missed",
    /// Somebody has asked for a restore.
    RestoreRequested = "restore_requested",
    /// A restore has succeeded.
    RestoreSucceeded = "restore_succeeded",
    /// A restore has failed; the detail says why.
    RestoreFailed = "restore_failed",
    /// A restore was ended before it touched its target because somebody asked for it; the detail
    /// says who.
    RestoreCancelled = "restore_cancelled",
    /// A drill has proven a backup; the detail names the server that loaded it.
    DrillProven = "drill_proven",
    /// A drill has failed; the detail says why.
    DrillFailed = "drill_failed",
    /// An instance was adopted.
    InstanceAdopted = "instance_adopted",
    /// Name, description, maintenance window or tags of an instance were changed, or how it is
    /// reached.
    InstanceChanged = "instance_changed",
    /// An instance was let go.
    InstanceRemoved = "instance_removed",
    /// An instance counts as down; the detail says what it answered last.
    InstanceUnreachable = "instance_unreachable",
    /// An instance that counted as down answers again.
    InstanceReachable = "instance_reachable",
    /// The backup policy of an instance was changed.
    PolicyChanged = "policy_changed",
    /// A disk of the service is nearly full: new work is refused. The detail says which.
    DiskLow = "disk_low",
    /// The disks of the service have space again.
    DiskRecovered = "disk_recovered",
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No event is called so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no such kind of event; the first of them is `{first}`", first = EventKind::ALL[0])]
pub struct UnknownEventKind;

impl FromStr for EventKind {
    type Err = UnknownEventKind;

    fn from_str(text: &str) -> Result<Self, UnknownEventKind> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text).ok_or(UnknownEventKind)
    }
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place among all.
    pub id: EventId,
    /// When it happened.
    pub at: Timestamp,
    /// The project.
    pub project: ProjectId,
    /// The instance; of a restore its target. None for an event of the whole service.
    pub instance: Option<InstanceId>,
    /// The current name of the instance.
    pub instance_name: Option<InstanceName>,
    /// What happened.
    pub kind: EventKind,
    /// The backup that it is about; of a restore the one that is restored.
    pub backup: Option<BackupId>,
    /// The restore that it is about.
    pub restore: Option<RestoreId>,
    /// What there is to say, for people; at most [`EVENT_DETAIL_CHARS_MAX`] characters.
    pub detail: Option<String>,
}

/// Which events are wanted. By default all of a project, the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventFilter {
    /// Of this instance alone.
    pub instance: Option<InstanceId>,
    /// Behind this one.
    pub after: EventId,
    /// Before this one.
    pub before: Option<EventId>,
    /// The newest first.
    pub newest_first: bool,
}

/// Events of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPage {
    /// The events.
    pub items: Vec<Event>,
    /// The newest event of the whole catalog when they were read: whoever has seen all of these, and
    /// got fewer than asked for, goes on behind it.
    pub newest: EventId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back_from_its_word() {
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
        }
        assert!("backup".parse::<EventKind>().is_err());
    }

    #[test]
    fn only_plain_numbers_name_an_event() {
        assert_eq!("17".parse(), Ok(EventId::new(17)));
        assert_eq!(EventId::MAX.to_string().parse(), Ok(EventId::MAX));
        assert_eq!(EventId::new(u64::MAX), EventId::MAX);
        for text in ["", "-1", "+1", "1.5", "x", "9223372036854775808", &"1".repeat(99)] {
            assert_eq!(text.parse::<EventId>(), Err(InvalidEventId), "{text}");
        }
    }
}

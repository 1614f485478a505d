//! The nouns and laws of Cachevault.
//!
//! Everything here is plain data and pure functions: what an instance, a backup, a restore
//! and a job are, which states they have and how these may change. The central type is [`Backup`].
//!
//! This crate deliberately knows nothing of storage, networks, wire formats or the time of day:
//! a moment and a random number are always parameters ([`Clock`], [`Entropy`]).
//!
//! # Glossary
//!
//! | word | meaning |
//! |---|---|
//! | project | the tenant: 32 hex digits; everything belongs to one |
//! | caller | who asks: in one project or none, with what it is allowed to do there |
//! | role | what somebody may do in a project: `reader`, `operator`, `admin`, or a policy's name |
//! | access policy | a role that a project writes itself: a name and patterns of actions |
//! | credential | an access key and its secret, of one project, with a role there |
//! | grant | the role that a user has in a project |
//! | token | what a user that has signed in shows with each request; it ends by itself |
//! | administrator of the service | who manages projects and users; no role makes one |
//! | instance | one registered Redis or Valkey deployment |
//! | shard | one primary's key space inside an instance; a standalone has one |
//! | backup | the record of one copy of an instance's data |
//! | restore | the record of putting a backup's data into an instance, its target |
//! | safety backup | the backup of the target that a restore makes before it writes |
//! | artifact | one object in the store: one shard's RDB, encoded |
//! | manifest | the object that commits a backup set; written last |
//! | policy, plan | whether an instance is backed up by itself; in which windows |
//! | schedule | a plan by a pattern like cron's, in a time zone |
//! | window | the hours in which a policy's backup begins |
//! | agenda | which window of a policy comes next, and when there is something to decide |
//! | content | whether all bytes of a backup's RDB were understood: `verified`, `opaque` or `unknown` |
//! | drill | loading a backup into a throw-away server, to see that it holds the same data |
//! | proof | that a drill found it so; the backup is then proven |
//! | event | that something has happened to an instance, a backup or a restore; numbered, kept for a time |
//! | webhook, delivery | a URL that is told of events; telling it of one |
//! | capture | stream the data of a live server into an artifact |
//! | job, step, attempt, lease | durable unit of work; its parts; one try; the right to run it until a time |

#![deny(missing_docs)]

mod access;
mod agenda;
mod audit;
mod backup;
mod clock;
mod connection;
mod drill;
mod error_text;
mod event;
mod formats;
mod hosts;
mod id;
mod identity;
mod instance;
mod job;
mod listing;
mod plan;
mod policy;
mod restore;
mod retention;
mod schedule;
mod server;
mod settings;
mod webhook;

pub use access::{
    Action, ActionPattern, BuiltInRole, Caller, Denied, InvalidActionPattern, NotAdministrator,
    Permissions, Subject,
};
pub use agenda::{Agenda, Decision, MissedWindow, Outcome, RETRIES_A_DAY_MAX, Tried, Windows};
pub use audit::{AUDIT_TEXT_CHARS_MAX, AuditFilter, AuditRecord, AuditResult, NewAuditRecord};
pub use backup::{
    Backup, BackupEvent, BackupFormat, BackupState, Cancellation, ContentState, Failure,
    FailureCode, InvalidTransition, NOTE_CHARS_MAX, NewBackup, Note, NoteTooLong, Progress,
    RdbDialect, StoredBackup, StoredFiles, Trigger,
};
pub use clock::{Clock, Entropy, SystemClock};
pub use connection::{Connection, ConnectionChange, InvalidConnection, NewConnection};
pub use drill::{DrillFailure, PROOF_SERVER_CHARS_MAX, Proof, ProvenBackup};
pub use error_text::with_sources;
pub use event::{
    EVENT_DETAIL_CHARS_MAX, Event, EventFilter, EventId, EventKind, EventPage, InvalidEventId,
    UnknownEventKind,
};
pub use formats::{
    FormatRow, Formats, Loads, RdbFamily, RdbVersion, formats_of, unknown_server_warning,
};
pub use hosts::{HostRule, HostRules, InvalidHostRule};
pub use id::{
    AccessKey, BackupId, InstanceId, InvalidId, JobId, NodeId, PolicyId, ProjectId, ReadingId,
    RequestId, RestoreId, StoreId, UserId, WebhookId,
};
pub use identity::{
    AccessPolicy, Credential, Grant, InvalidName, Project, ProjectName, RoleName, SignIn, Token,
    TokenHash, TokenScope, User, UserName, UserRef,
};
pub use instance::{
    Health, INSTANCE_NAME_CHARS_MAX, Instance, InstanceName, InstanceState, InvalidInstanceName,
    Observation, SealedConnection, SealedSecret,
};
pub use job::{
    Attempt, Backoff, Job, JobKind, JobState, Lease, Requeue, StepRecord, waiting_for_host,
};
pub use listing::{BackupFilter, InstanceCounts, InstanceFilter, Listing, Page, RestoreFilter};
pub use plan::{Blocker, Loading, RestorePlan};
pub use policy::{
    BackupPolicy, DuePlan, HourWindow, InvalidPolicy, InvalidWindow, KEEP_COUNT_MAX, KEEP_DAYS_MAX,
    Keep, KeepDays, Plan, SAVE_DAYS_MAX, SaveDays, StoredPolicy, Weekdays, WeeklyPlan,
};
pub use restore::{
    ConflictRule, InvalidRestoreTransition, KEY_PATTERN_BYTES_MAX, KeyFilter, NewRestore,
    NewSafetyBackup, PatternTooLong, Restore, RestoreEvent, RestoreOptions, RestoreOutcome,
    RestoreState, RestoreWay, TargetData, TtlRule,
};
pub use retention::{
    BACKUPS_WITH_FILES_MAX, Generations, Retained, Retention, ShrinkRule, beyond_limit, expired,
};
pub use schedule::{InvalidSchedule, Schedule, Window, time_zone};
pub use server::{
    Address, EngineKind, Identity, InvalidVersion, Login, ProbeError, Role, ServerVersion,
    ServerWords, Target, TlsSettings,
};
pub use settings::{
    DESCRIPTION_CHARS_MAX, Description, DescriptionTooLong, InstanceChange, InstanceSettings,
    InvalidTag, TAG_KEY_CHARS_MAX, TAG_VALUE_CHARS_MAX, TAGS_MAX, Tag, TagChange,
};
pub use webhook::{Delivery, DeliveryResult, WEBHOOKS_MAX, Webhook, WebhookChange};

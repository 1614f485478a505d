//! Jobs on a real Redis, a real SQLite catalog and a real folder.

#![expect(clippy::disallowed_methods, reason = "a test owns the task that it starts")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a rig that breaks stops its test")]

mod bucket_faults;
mod cancel;
mod drills;
mod every_kind;
mod failing_catalog;
mod failures;
mod identity;
mod messages;
mod newest;
mod restores;
mod rig;
mod scheduling;
mod servers;
mod shrinking;
mod tending;
mod worker;

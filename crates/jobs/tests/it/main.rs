//! Jobs on a real Redis, a real SQLite catalog and a real folder.

#![expect(clippy::disallowed_methods, reason = "a test owns the task that it starts and waits for it")]

mod every_kind;
mod failures;
mod rig;
mod worker;

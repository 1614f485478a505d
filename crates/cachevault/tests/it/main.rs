//! The real binary, with real servers.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a rig that breaks stops its test")]

mod access;
mod bucket;
mod codes;
mod command_line;
mod connections;
mod crashes;
mod damage;
mod data_folder;
mod diff;
mod disk;
mod download;
mod events;
mod failing_calls;
mod identity;
mod inspect;
mod lifecycle;
mod load;
mod monitoring;
mod place;
mod reached;
mod removals;
mod restore_crashes;
mod schedules;
mod secrets;
mod service;
mod sources;
mod tls;
mod upgrade;
mod upkeep;
mod webhooks;

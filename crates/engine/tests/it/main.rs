//! The engine against real servers, recorded ones and scripted ones.

#![expect(clippy::disallowed_methods, reason = "a test owns the task that it starts")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a rig that breaks stops its test")]

mod capture_faults;
mod capture_real;
mod capture_recorded;
mod drill;
mod guard;
mod keys;
mod probe;
mod restore_faults;
mod restore_plan;
mod restore_real;
mod restore_rights;
mod support;

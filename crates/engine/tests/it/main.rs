//! The engine against real servers, recorded ones and scripted ones.

#![expect(clippy::disallowed_methods, reason = "a test owns the task that it starts and waits for it")]

mod capture_faults;
mod capture_real;
mod capture_recorded;
mod probe;
mod support;

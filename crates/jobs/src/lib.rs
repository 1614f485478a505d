//! Durable jobs: claim, run step by step, record.
//!
//! A job is a short list of named steps with a log in the catalog. A worker claims it with a
//! lease, keeps extending the lease while it works, and writes nothing once the lease is lost.
//! Each step may run twice, and each has an undo; so a job can be killed anywhere and taken up
//! by whoever claims it next:
//!
//! ```text
//! claim ─► step 1 ─► log ─► step 2 ─► log ─► … ─► finish
//!            │                 └─ Retry: undo this step, come back later, go on from here
//!            └─ Restart: undo everything, come back later; Fail: undo everything, record why
//! ```
//!
//! [`Worker`] runs jobs; [`Scheduler`] asks for those that are due by themselves; [`Observer`] looks at
//! instances from time to time, [`Tender`] after what is stored; [`Messenger`] tells webhooks; [`DiskWatch`] watches the
//! service's own disks. All end when told, in two phases ([`Shutdown`]). This crate knows no HTTP.

#![deny(missing_docs)]

mod capture;
mod disk;
mod drill;
mod figures;
mod log;
mod messenger;
mod observe;
mod opener;
mod prober;
mod remove;
mod restore;
mod runner;
mod scheduler;
mod shutdown;
mod step;
mod tender;
mod worker;

pub use disk::DiskWatch;
pub use drill::{DrillSettings, Driller};
pub use figures::JobFigures;
pub use messenger::{MESSAGES_MAX, Messenger};
pub use observe::Observer;
pub use opener::EngineOpener;
pub use prober::EngineProber;
pub use runner::{Injected, Injection, Runner};
pub use scheduler::Scheduler;
pub use shutdown::Shutdown;
pub use tender::{Swept, Tender};
pub use worker::{JobSettings, Worker};

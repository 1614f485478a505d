//! The data plane: looks at live servers, and streams their data into the store.
//!
//! - [`probe`] connects and says exactly what is wrong, or what runs there;
//! - [`capture`] streams one server's RDB into one artifact, checked while it passes;
//! - [`verify_artifact`] reads an artifact back and proves it to the last byte;
//! - [`RdbReader`] gives the RDB inside one, its end only when all of it was proved.
//!
//! ```text
//! socket ─► replication session ─► inspect ─► zstd ─► store ─► read back, SHA-256
//!   runtime thread                 └ own thread ┘     other threads
//!                                     └► decoded again: does it give the same?
//! ```
//!
//! Between the threads lie bounded channels, so memory per capture is a constant whatever the
//! size of the data. This crate knows no catalog and no HTTP.

#![deny(missing_docs)]

mod background;
mod capture;
mod client;
mod connect;
mod decode;
mod drill;
mod encode;
mod error;
mod frames;
mod gate;
mod guard;
mod info;
mod meter;
mod probe;
mod queue;
mod restore;
mod source;
mod verify;
mod words;

pub use capture::{CaptureLimits, CaptureRequest, capture};
pub use drill::{DrillError, DrillRequest, Proven, drill, sweep_drills};
pub use error::{CaptureError, VerifyError, store_failure_code};
pub use gate::SourceGate;
pub use guard::SourceLimits;
pub use meter::{Meter, MeterReading};
pub use probe::{ProbeLimits, look, probe};
pub use restore::{
    ChangedSetting, Comparison, KeysLoaded, KeysRequest, LoadRequest, Loaded, OurAddress,
    PartRequest, PlanRequest, Prepared, PreparedKeys, ProofDemand, RdbReader, RestoreError,
    RestoreLimits, Withdrawn, check_part, empty, load, load_keys, make_durable, plan, prepare,
    prepare_keys, save, withdraw,
};
pub use verify::verify_artifact;

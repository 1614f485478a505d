//! Puts an artifact's data into a live server.

mod admin;
mod artifact;
mod error;
mod glob;
mod keys_state;
mod keys_way;
mod plan;
mod prove;
mod replica_way;
mod serve;

pub use artifact::RdbReader;
pub use error::RestoreError;
pub use keys_state::{PreparedKeys, empty, prepare_keys, save};
pub use keys_way::{KeysLoaded, KeysRequest, load_keys};
pub use plan::{PartRequest, PlanRequest, check_part, plan};
pub use prove::{Comparison, ProofDemand};
pub use replica_way::{
    ChangedSetting, LoadRequest, Loaded, OurAddress, Prepared, RestoreLimits, Withdrawn, load,
    make_durable, prepare, withdraw,
};

//! For development only: real servers, a scripted server, a manual clock.
//!
//! No shipped code uses this crate. Servers listen on the loopback address only, keep their files
//! in a temporary folder, and end when their value is dropped.

#![expect(clippy::expect_used, reason = "a failed setup ends its test")]

mod certificates;
mod clock;
mod dataset;
mod engines;
mod recording;
mod s3;
mod scripted;
mod server;

pub use certificates::Certificates;
pub use clock::{MovedClock, SeededEntropy};
pub use dataset::{add_vector_sets, dataset_for};
pub use engines::{Engine, future_engine, installed_engine, installed_engines, newest_redis};
pub use recording::{Payload, Recording, Scenario, recordings};
pub use s3::{BUCKET, S3Call, S3Fault, S3Key, S3Server};
pub use scripted::{Act, ScriptedServer};
pub use server::{Reply, Server, eventually, free_port, repository_file, text};

//! The common parts of DCS v1.0 and v2: errors, path and query parameters, times.
//!
//! The vendor's terms (`remark`, `backuping`, `succeed`) appear only in this module.

mod deletion;
mod error;
mod extract;
mod figures;
mod instance;
mod offers;
mod parameters;
mod password;
mod policy;
mod settings;
pub(crate) mod v1_0;
pub(crate) mod v2;
pub(crate) mod versions;
mod wish;
mod words;

pub(crate) use error::{DcsError, V1ErrorBody, V2ErrorBody};
pub(crate) use words::{error_code as failure_word, instance_state};

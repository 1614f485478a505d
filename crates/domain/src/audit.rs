//! Who did what: one record for each call that changes something, or tried to, and for each download;
//! and records of those who did not prove who they are.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::{AccessKey, ProjectId, RequestId};

/// The longest operation or resource that is recorded, characters.
pub const AUDIT_TEXT_CHARS_MAX: usize = 512;

/// A call, as it is recorded before anything is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAuditRecord {
    /// The request's id, which answers and log lines carry too.
    pub request: RequestId,
    /// The project that it was about; none for what is about no project.
    pub project: Option<ProjectId>,
    /// The key that signed it.
    pub access_key: Option<AccessKey>,
    /// The name of the user that sent it.
    pub user: Option<String>,
    /// Where it came from.
    pub address: Option<IpAddr>,
    /// What was to be done: method and route, such as `DELETE /api/v1/backups/{backup_id}`.
    pub operation: String,
    /// To what: the path, with its ids.
    pub resource: String,
    /// When.
    pub at: Timestamp,
}

/// A recorded call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// The call.
    pub call: NewAuditRecord,
    /// How it was answered; none while it runs, and for ever where the service died meanwhile.
    pub result: Option<AuditResult>,
}

/// How a recorded call was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditResult {
    /// The HTTP status.
    pub status: u16,
    /// The code of the error, where it was one.
    pub error: Option<String>,
    /// The bytes of a file that were sent, where it was a download.
    pub bytes: Option<u64>,
    /// How many calls alike it stands for: of those that were refused not each has its own record.
    pub times: u32,
    /// When.
    pub at: Timestamp,
}

impl AuditResult {
    /// The answer to one call that sent no file.
    pub fn new(status: u16, error: Option<String>, at: Timestamp) -> Self {
        Self { status, error, bytes: None, times: 1, at }
    }
}

/// Which records are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditFilter {
    /// From this moment on.
    pub from: Option<Timestamp>,
    /// Until this moment.
    pub to: Option<Timestamp>,
    /// Behind this one, in the order of the list.
    pub after: Option<RequestId>,
    /// What is about no project, too: projects and users of the service.
    pub with_service: bool,
    /// The oldest first; the newest otherwise.
    pub oldest_first: bool,
}

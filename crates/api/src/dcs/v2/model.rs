//! What v2 reads and writes.

use cachevault_domain::{Backup, Instance, Listing};
use serde::{Deserialize, Serialize};

use crate::dcs::instance::InstanceBody;
use crate::dcs::words;

/// The body of a request for a backup.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct CreateBackup {
    pub(crate) remark: Option<String>,
    pub(crate) backup_format: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct BackupCreated {
    pub(crate) backup_id: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct BackupRecords {
    pub(crate) total_num: u64,
    pub(crate) backup_record_response: Vec<BackupRecord>,
}

#[derive(Debug, Serialize)]
pub(crate) struct BackupRecord {
    backup_id: String,
    period: Option<String>,
    backup_name: String,
    instance_id: String,
    size: u64,
    backup_type: &'static str,
    backup_format: &'static str,
    created_at: String,
    updated_at: Option<String>,
    execution_at: Option<String>,
    progress: String,
    error_code: Option<&'static str>,
    remark: Option<String>,
    status: &'static str,
    is_support_restore: &'static str,
}

impl From<&Backup> for BackupRecord {
    fn from(backup: &Backup) -> Self {
        Self {
            backup_id: backup.id.to_string(),
            period: backup.window.clone(),
            backup_name: words::backup_name(backup.created_at),
            instance_id: backup.instance.to_string(),
            size: backup.size_bytes,
            backup_type: words::backup_type(backup.trigger),
            backup_format: backup.format.as_str(),
            created_at: words::time(backup.created_at),
            updated_at: backup.completed_at.map(words::time),
            execution_at: backup.started_at.map(words::time),
            progress: backup.progress.to_string(),
            error_code: backup.failure.as_ref().map(|failure| words::error_code(failure.code)),
            remark: backup.note.as_ref().map(|note| note.as_str().to_owned()),
            status: words::backup_status(backup.state),
            is_support_restore: words::is_support_restore(backup),
        }
    }
}

impl From<Listing<Backup>> for BackupRecords {
    fn from(listing: Listing<Backup>) -> Self {
        Self {
            total_num: listing.total,
            backup_record_response: listing.items.iter().map(BackupRecord::from).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Instances {
    instance_num: u64,
    instances: Vec<InstanceBody>,
}

impl From<Listing<Instance>> for Instances {
    fn from(listing: Listing<Instance>) -> Self {
        Self {
            instance_num: listing.total,
            instances: listing.items.iter().map(InstanceBody::from).collect(),
        }
    }
}

//! What v1.0 reads and writes.

use cachevault_app::FileLink;
use cachevault_domain::{Backup, Instance, Listing, Note, Restore};
use serde::{Deserialize, Serialize};

use crate::dcs::instance::InstanceBody;
use crate::dcs::words;

/// The body of a request for a backup. The version's documents know only the remark; a format
/// is understood, so that nobody asks for one and gets another.
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
pub(crate) struct BackupDeleted {
    pub(crate) message: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct BackupRecords {
    pub(crate) backup_record_response: Vec<BackupRecord>,
    pub(crate) total_num: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct BackupRecord {
    status: &'static str,
    remark: Option<String>,
    period: Option<String>,
    progress: String,
    size: u64,
    instance_id: String,
    backup_id: String,
    created_at: String,
    updated_at: Option<String>,
    execution_at: Option<String>,
    backup_type: &'static str,
    backup_format: String,
    backup_name: String,
    error_code: Option<&'static str>,
    is_support_restore: &'static str,
}

impl From<&Backup> for BackupRecord {
    fn from(backup: &Backup) -> Self {
        Self {
            status: words::backup_status(backup.state),
            remark: backup.note.as_ref().map(|note| note.as_str().to_owned()),
            period: backup.window.clone(),
            progress: backup.progress.to_string(),
            size: backup.size_bytes,
            instance_id: backup.instance.to_string(),
            backup_id: backup.id.to_string(),
            created_at: words::time(backup.created_at),
            updated_at: backup.completed_at.map(words::time),
            execution_at: backup.started_at.map(words::time),
            backup_type: words::backup_type(backup.trigger),
            // Upper case here, lower case in v2.
            backup_format: backup.format.as_str().to_uppercase(),
            backup_name: words::backup_name(backup.created_at),
            error_code: backup.failure.as_ref().map(|failure| words::error_code(failure.code)),
            is_support_restore: words::is_support_restore(backup),
        }
    }
}

impl From<Listing<Backup>> for BackupRecords {
    fn from(listing: Listing<Backup>) -> Self {
        Self {
            backup_record_response: listing.items.iter().map(BackupRecord::from).collect(),
            total_num: listing.total,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Instances {
    instance_num: u64,
    instances: Vec<InstanceDetail>,
}

/// An instance with the fields that only v1.0 has.
#[derive(Debug, Serialize)]
pub(crate) struct InstanceDetail {
    #[serde(flatten)]
    body: InstanceBody,
    #[serde(rename = "domainName")]
    domain_name: Option<String>,
    resource_spec_code: &'static str,
    product_id: String,
    internal_version: Option<String>,
    task_status: Option<String>,
    libos: bool,
}

impl From<&Instance> for InstanceDetail {
    fn from(instance: &Instance) -> Self {
        Self {
            product_id: format!("{}-h", InstanceBody::from(instance).spec_code),
            body: instance.into(),
            domain_name: None,
            resource_spec_code: InstanceBody::from(instance).spec_code,
            internal_version: None,
            task_status: None,
            libos: false,
        }
    }
}

impl From<Listing<Instance>> for Instances {
    fn from(listing: Listing<Instance>) -> Self {
        Self {
            instance_num: listing.total,
            instances: listing.items.iter().map(InstanceDetail::from).collect(),
        }
    }
}

/// The body of a request for a restore.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct CreateRestore {
    pub(crate) backup_id: Option<String>,
    pub(crate) remark: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct RestoreCreated {
    pub(crate) restore_id: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct RestoreRecords {
    total_num: u64,
    restore_record_response: Vec<RestoreRecord>,
}

#[derive(Debug, Serialize)]
struct RestoreRecord {
    restore_id: String,
    restore_name: String,
    restore_remark: Option<String>,
    backup_id: String,
    backup_name: String,
    backup_remark: Option<String>,
    status: &'static str,
    progress: String,
    error_code: Option<&'static str>,
    created_at: String,
    updated_at: Option<String>,
    /// The documents' table has one spelling, their example the other.
    #[serde(rename = "sourceInstanceId")]
    source_instance_id: String,
    #[serde(rename = "sourceInstanceID")]
    source_instance_id_too: String,
    #[serde(rename = "sourceInstanceName")]
    source_instance_name: String,
}

impl From<&Restore> for RestoreRecord {
    fn from(restore: &Restore) -> Self {
        let text = |note: &Option<Note>| note.as_ref().map(|note| note.as_str().to_owned());
        Self {
            restore_id: restore.id.to_string(),
            restore_name: words::restore_name(restore.created_at),
            restore_remark: text(&restore.note),
            backup_id: restore.backup.to_string(),
            backup_name: words::backup_name(restore.backup_created_at),
            backup_remark: text(&restore.backup_note),
            status: words::restore_status(restore.state),
            progress: restore.progress.to_string(),
            error_code: restore.failure.as_ref().map(|failure| words::error_code(failure.code)),
            created_at: words::time(restore.created_at),
            updated_at: restore.completed_at.map(words::time),
            source_instance_id: restore.source_instance.to_string(),
            source_instance_id_too: restore.source_instance.to_string(),
            source_instance_name: restore.source_instance_name.to_string(),
        }
    }
}

impl From<Listing<Restore>> for RestoreRecords {
    fn from(listing: Listing<Restore>) -> Self {
        Self {
            total_num: listing.total,
            restore_record_response: listing.items.iter().map(RestoreRecord::from).collect(),
        }
    }
}

/// The body of a request for links. The version's table says text, its example shows a number.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct AskForLinks {
    pub(crate) expiration: Option<Expiration>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Expiration {
    Number(i64),
    Text(String),
}

impl Expiration {
    /// The seconds; `None` for a text that is no number.
    pub(crate) fn seconds(&self) -> Option<i64> {
        match self {
            Self::Number(seconds) => Some(*seconds),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct BackupLinks {
    file_path: String,
    bucket_name: &'static str,
    links: Vec<Link>,
}

#[derive(Debug, Serialize)]
struct Link {
    file_name: String,
    link: String,
}

impl BackupLinks {
    /// `url` gives the URL of a link. The path is the whole key of the first file, unlike in v2.
    pub(crate) fn new(
        found: &cachevault_app::BackupLinks,
        url: impl Fn(&FileLink) -> String,
    ) -> Self {
        let first = found.files.first().map_or("", |file| &file.ticket.file_name);
        let link =
            |file: &FileLink| Link { file_name: file.ticket.file_name.clone(), link: url(file) };
        Self {
            file_path: format!("{}/{first}", found.folder),
            bucket_name: words::BUCKET_NAME,
            links: found.files.iter().map(link).collect(),
        }
    }
}

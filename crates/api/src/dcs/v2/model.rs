//! Request and response bodies of v2.

use cachevault_app::FileLink;
use cachevault_domain::{Backup, Instance, Listing, Note, Restore};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::dcs::instance::InstanceBody;
use crate::dcs::words;

/// A request for a backup.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct CreateBackup {
    #[schema(example = "Backup instances", max_length = 128)]
    pub(crate) remark: Option<String>,
    /// `rdb`, in any case; an empty text counts as absent.
    #[schema(example = "rdb", pattern = "^([rR][dD][bB])?$")]
    pub(crate) backup_format: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackupCreated {
    #[schema(example = "548ceeff-2cbb-47ab-9a1c-7b085a8c08d7", format = "uuid")]
    pub(crate) backup_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackupRecords {
    /// Total number of matching records.
    pub(crate) total_num: u64,
    pub(crate) backup_record_response: Vec<BackupRecord>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackupRecord {
    backup_id: String,
    /// The window of a scheduled backup; null otherwise.
    #[schema(example = "22:00-23:00")]
    period: Option<String>,
    backup_name: String,
    instance_id: String,
    #[schema(example = 880232)]
    size: u64,
    backup_type: &'static str,
    backup_format: &'static str,
    #[schema(example = "2019-05-10T08:31:16.166Z", format = DateTime)]
    created_at: String,
    updated_at: Option<String>,
    execution_at: Option<String>,
    #[schema(example = "100.00", pattern = "^[0-9]{1,3}\\.[0-9]{2}$")]
    progress: String,
    /// The code of the failure; null otherwise.
    #[schema(example = "dcs.08.0001")]
    error_code: Option<&'static str>,
    remark: Option<String>,
    #[schema(example = "succeed")]
    status: &'static str,
    /// `TRUE` or `FALSE`, as text.
    #[schema(example = "TRUE", pattern = "^(TRUE|FALSE)$")]
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

/// A page of instances.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Instances {
    /// Total number of matching instances.
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

/// A request for a restore.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct CreateRestore {
    /// A backup with the status `succeed`.
    #[schema(
        example = "8ba256cb-e5ac-44f6-a3da-c03d8f0e5029",
        format = "uuid",
        nullable = false,
        required
    )]
    pub(crate) backup_id: Option<String>,
    #[schema(example = "restore instance", max_length = 128)]
    pub(crate) remark: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RestoreCreated {
    #[schema(example = "a6155972-800c-4170-a479-3231e907d2f6", format = "uuid")]
    pub(crate) restore_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RestoreRecords {
    /// Total number of matching records.
    total_num: u64,
    restore_record_response: Vec<RestoreRecord>,
}

#[derive(Debug, Serialize, ToSchema)]
struct RestoreRecord {
    restore_id: String,
    restore_name: String,
    restore_remark: Option<String>,
    backup_id: String,
    backup_name: String,
    backup_remark: Option<String>,
    #[schema(example = "succeed")]
    status: &'static str,
    #[schema(example = "100.00", pattern = "^[0-9]{1,3}\\.[0-9]{2}$")]
    progress: String,
    /// The code of the failure; null otherwise.
    #[schema(example = "dcs.08.0001")]
    error_code: Option<&'static str>,
    #[schema(example = "2019-05-10T08:31:16.166Z", format = DateTime)]
    created_at: String,
    updated_at: Option<String>,
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

/// A request for download links.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct AskForLinks {
    /// Lifetime of the links in seconds.
    #[schema(example = 1800, minimum = 300, maximum = 86400, nullable = false, required)]
    pub(crate) expiration: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackupLinks {
    file_path: String,
    bucket_name: String,
    links: Vec<Link>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Link {
    file_name: String,
    link: String,
}

impl BackupLinks {
    /// Creates the body; `url` builds the URL of a link. The path is the folder, unlike in v1.0.
    pub(crate) fn new(
        found: &cachevault_app::BackupLinks,
        url: impl Fn(&FileLink) -> String,
    ) -> Self {
        let link =
            |file: &FileLink| Link { file_name: file.ticket.file_name.clone(), link: url(file) };
        Self {
            file_path: format!("{}/", found.folder),
            bucket_name: words::bucket_name(found),
            links: found.files.iter().map(link).collect(),
        }
    }
}

/// The created instance; always exactly one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InstancesCreated {
    instances: Vec<InstanceCreated>,
}

#[derive(Debug, Serialize, ToSchema)]
struct InstanceCreated {
    #[schema(format = "uuid")]
    instance_id: String,
    #[schema(example = "dcs-demo")]
    instance_name: String,
}

impl From<&Instance> for InstancesCreated {
    fn from(instance: &Instance) -> Self {
        let (instance_id, instance_name) = (instance.id.to_string(), instance.name.to_string());
        Self { instances: vec![InstanceCreated { instance_id, instance_name }] }
    }
}

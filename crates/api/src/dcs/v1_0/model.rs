//! Request and response bodies of v1.0.

use cachevault_app::FileLink;
use cachevault_domain::{Backup, Instance, Listing, Note, Restore};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::{ObjectBuilder, OneOfBuilder, Schema, Type};

use crate::dcs::instance::InstanceBody;
use crate::dcs::words;

/// A request for a backup. v1.0 has no format: `backup_format` is ignored.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct CreateBackup {
    #[schema(example = "Backup instances", max_length = 128)]
    pub(crate) remark: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackupCreated {
    #[schema(example = "548ceeff-2cbb-47ab-9a1c-7b085a8c08d7", format = "uuid")]
    pub(crate) backup_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackupDeleted {
    pub(crate) message: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackupRecords {
    pub(crate) backup_record_response: Vec<BackupRecord>,
    /// Total number of matching records.
    pub(crate) total_num: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackupRecord {
    #[schema(example = "succeed")]
    status: &'static str,
    remark: Option<String>,
    /// The window of a scheduled backup; null otherwise.
    #[schema(example = "22:00-23:00")]
    period: Option<String>,
    #[schema(example = "100.00", pattern = "^[0-9]{1,3}\\.[0-9]{2}$")]
    progress: String,
    #[schema(example = 880232)]
    size: u64,
    instance_id: String,
    backup_id: String,
    #[schema(example = "2019-05-10T08:31:16.166Z", format = DateTime)]
    created_at: String,
    updated_at: Option<String>,
    execution_at: Option<String>,
    backup_type: &'static str,
    backup_format: String,
    backup_name: String,
    /// The code of the failure; null otherwise.
    #[schema(example = "dcs.08.0001")]
    error_code: Option<&'static str>,
    /// `TRUE` or `FALSE`, as text.
    #[schema(example = "TRUE", pattern = "^(TRUE|FALSE)$")]
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

/// A page of instances.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Instances {
    /// Total number of matching instances.
    instance_num: u64,
    instances: Vec<InstanceDetail>,
}

/// An instance, with the fields that only v1.0 has.
#[derive(Debug, Serialize, ToSchema)]
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
    /// The documents spell the field in two ways; both are sent.
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

/// A request for download links. The documents show the field as a text in the table and as a
/// number in the example.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct AskForLinks {
    #[schema(schema_with = expiration_schema, required)]
    pub(crate) expiration: Option<Expiration>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Expiration {
    Number(i64),
    Text(String),
}

fn expiration_schema() -> Schema {
    let number = ObjectBuilder::new().schema_type(Type::Integer);
    let number = number.minimum(Some(300)).maximum(Some(86_400)).examples([serde_json::json!(300)]);
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[3-9][0-9][0-9]$"));
    let either = OneOfBuilder::new().item(number).item(text);
    either.description(Some("Lifetime of the links in seconds, 300 to 86400.")).into()
}

impl Expiration {
    /// The seconds; `None` for a text that is not a number.
    pub(crate) fn seconds(&self) -> Option<i64> {
        match self {
            Self::Number(seconds) => Some(*seconds),
            Self::Text(text) => text.parse().ok(),
        }
    }
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
    /// Creates the body; `url` builds the URL of a link. The path is the object name of the first
    /// file, unlike in v2.
    pub(crate) fn new(
        found: &cachevault_app::BackupLinks,
        url: impl Fn(&FileLink) -> String,
    ) -> Self {
        let link =
            |file: &FileLink| Link { file_name: file.ticket.file_name.clone(), link: url(file) };
        Self {
            file_path: found.first_object.clone(),
            bucket_name: words::bucket_name(found),
            links: found.files.iter().map(link).collect(),
        }
    }
}

/// The created instance; always exactly one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InstancesCreated {
    #[schema(format = "uuid")]
    instance_id: String,
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
        Self {
            instance_id: instance_id.clone(),
            instances: vec![InstanceCreated { instance_id, instance_name }],
        }
    }
}

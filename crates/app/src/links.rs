//! Links by which a backup's files are downloaded by whoever has them.
//!
//! A link is a [`Ticket`] with its signature. The signature covers every part of the ticket and
//! comes from a key that only this service has. Nothing about links is stored: one ends when its
//! time is over or its backup is deleted, whichever comes first.

use std::fmt;
use std::time::Duration;

use cachevault_catalog::CatalogError;
use cachevault_domain::{
    Action, BackupEvent, BackupId, BackupState, Caller, InstanceId, InvalidTransition, ProjectId,
    ReadingId, with_sources,
};
use cachevault_store::{ArtifactEntry, ArtifactKey, Encoding, Manifest};
use jiff::Timestamp;

use crate::backups::backup_key;
use crate::reading::{KeptPieces, Reading};
use crate::{App, AppError, RdbPieces, RdbUnreadable};

/// The longest part of a file name that comes from outside, characters.
const ADDRESS_CHARS_MAX: usize = 100;

/// The time is too short or too long for a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a link lives {} to {} seconds", LinkLifetime::SECONDS_MIN, LinkLifetime::SECONDS_MAX)]
pub struct InvalidLinkLifetime;

/// How long a link lives: five minutes to a day, as the vendor has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkLifetime(i64);

impl LinkLifetime {
    /// The shortest, seconds.
    pub const SECONDS_MIN: i64 = 300;
    /// The longest, seconds.
    pub const SECONDS_MAX: i64 = 86_400;

    /// So many seconds.
    ///
    /// # Errors
    /// [`InvalidLinkLifetime`] when it is out of bounds.
    pub fn from_seconds(seconds: i64) -> Result<Self, InvalidLinkLifetime> {
        let allowed = Self::SECONDS_MIN..=Self::SECONDS_MAX;
        allowed.contains(&seconds).then_some(Self(seconds)).ok_or(InvalidLinkLifetime)
    }
}

/// What a link opens, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The project of the backup.
    pub project: ProjectId,
    /// The backup.
    pub backup: BackupId,
    /// Which of its shards, from 0.
    pub shard: u16,
    /// The name under which the file is saved; harmless as one.
    pub file_name: String,
    /// The end of the link: seconds since 1970.
    pub expires_at: i64,
}

impl fmt::Display for Ticket {
    /// What is signed. No part can hold the sign between the parts, so two tickets never read alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { project, backup, shard, file_name, expires_at } = self;
        write!(f, "{project}\n{backup}\n{shard}\n{expires_at}\n{file_name}")
    }
}

/// A link to one file of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLink {
    /// What it opens.
    pub ticket: Ticket,
    /// What proves that we gave it: 64 hexadecimal digits in lower case.
    pub signature: String,
    /// Size of the file, bytes.
    pub size_bytes: u64,
    /// The RDB's own CRC-64, hexadecimal; `None` when the server computed none.
    pub crc64: Option<String>,
}

/// Links to all files of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupLinks {
    /// The bucket of the store; `None` where the store is a folder.
    pub bucket: Option<String>,
    /// The folder of the files in the bucket or the store, without a `/` at the end.
    pub folder: String,
    /// The object of the first file, in the same way.
    pub first_object: String,
    /// One for each shard, in order.
    pub files: Vec<FileLink>,
}

/// A file that a link has opened.
#[derive(Debug, Clone)]
pub struct Download {
    /// The name under which to save it.
    pub file_name: String,
    /// Its size, bytes.
    pub size_bytes: u64,
    /// The RDB's own CRC-64, hexadecimal; `None` when the server computed none.
    pub crc64: Option<String>,
    /// Differs whenever the bytes differ.
    pub entity: String,
    key: ArtifactKey,
    entry: ArtifactEntry,
}

impl App {
    /// Gives links to the files of a backup.
    ///
    /// # Errors
    /// [`AppError::InstanceNotFound`]; [`AppError::BackupNotFound`] also when it is of another
    /// instance; [`AppError::BackupFilesGone`] also when its files are about to go; [`AppError::BackupUnsettled`] while it
    /// waits or runs; [`AppError::BackupNotRestorable`] when it has failed;
    /// [`AppError::BackupDamaged`]; [`AppError::CatalogFailed`], [`AppError::StoreUnavailable`].
    pub async fn link_backup(
        &self,
        caller: &Caller,
        instance: InstanceId,
        backup: BackupId,
        lifetime: LinkLifetime,
    ) -> Result<BackupLinks, AppError> {
        let project = caller.may(Action::DownloadBackup)?;
        self.require_instance(project, instance).await?;
        let backup = self.find_backup(project, backup).await?;
        if backup.instance != instance {
            return Err(AppError::BackupNotFound);
        }
        let (from, event) = (backup.state, BackupEvent::Removed);
        match backup.state {
            BackupState::Waiting | BackupState::Running => {
                return Err(AppError::BackupUnsettled(InvalidTransition { from, event }));
            }
            BackupState::Failed => return Err(AppError::BackupNotRestorable),
            BackupState::Succeeded | BackupState::Expired | BackupState::Deleted => {}
        }
        let attempt = backup.stored_attempt.filter(|_| backup.has_files());
        let attempt = attempt.ok_or(AppError::BackupFilesGone(backup.state))?;
        let manifest = self.restorable_manifest(&backup).await?;
        let expires_at = end_of(self.clock.now(), lifetime);
        let files = (0..).zip(&manifest.artifacts).map(|(shard, entry)| {
            let file_name = file_name(&manifest, shard, entry);
            let (project, backup) = (project.clone(), backup.id);
            let ticket = Ticket { project, backup, shard, file_name, expires_at };
            FileLink {
                signature: self.sealer.sign_link(&ticket.to_string()),
                ticket,
                size_bytes: entry.rdb.size_bytes,
                crc64: entry.rdb.crc64.clone(),
            }
        });
        let files = files.collect();
        let attempt = backup_key(&backup).attempt(attempt);
        let encoding = manifest.artifacts.first().map_or(Encoding::Zstd, |entry| entry.encoding);
        let place = self.store.bucket();
        let within = |path: String| match &place {
            Some(place) if !place.folder.is_empty() => format!("{}/{path}", place.folder),
            _ => path,
        };
        Ok(BackupLinks {
            folder: within(attempt.to_string()),
            first_object: within(attempt.artifact(0).encoded(encoding).to_string()),
            bucket: place.as_ref().map(|place| place.bucket.clone()),
            files,
        })
    }

    /// The file that a link opens; `None` when it opens nothing, whatever the reason: it was
    /// altered, its time is over, the backup is gone or known to be damaged, or its project is disabled.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`], [`AppError::StoreUnavailable`].
    pub async fn find_download(
        &self,
        ticket: &Ticket,
        signature: &str,
    ) -> Result<Option<Download>, AppError> {
        // The signature comes first: without one nothing is looked up.
        let is_ours = self.sealer.has_signed_link(&ticket.to_string(), signature);
        if !is_ours || self.clock.now().as_second() >= ticket.expires_at {
            return Ok(None);
        }
        if !self.is_enabled(&ticket.project).await? {
            return Ok(None);
        }
        let backup = match self.find_backup(&ticket.project, ticket.backup).await {
            Err(AppError::BackupNotFound) => return Ok(None),
            found => found?,
        };
        let manifest = match self.restorable_manifest(&backup).await {
            Err(AppError::BackupNotRestorable | AppError::BackupDamaged(_)) => return Ok(None),
            found => found?,
        };
        let Some(attempt) = backup.stored_attempt else { return Ok(None) };
        let entry = manifest.artifacts.into_iter().nth(usize::from(ticket.shard));
        Ok(entry.map(|entry| Download {
            file_name: ticket.file_name.clone(),
            size_bytes: entry.rdb.size_bytes,
            crc64: entry.rdb.crc64.clone(),
            entity: entry.stored_sha256.clone(),
            key: backup_key(&backup).attempt(attempt).artifact(ticket.shard),
            entry,
        }))
    }

    /// Opens the file. The backup does not expire while it is read, as long as no more than
    /// `pause_max` passes between two pieces. If somebody deletes it, its files stay for up to
    /// [`READ_ON_MAX`](cachevault_catalog::READ_ON_MAX) until the reading has ended; after that it
    /// ends with an error, or not at all, but never with other bytes.
    ///
    /// # Errors
    /// [`RdbUnreadable`].
    pub async fn open_download(
        &self,
        download: &Download,
        pause_max: Duration,
    ) -> Result<Box<dyn RdbPieces>, RdbUnreadable> {
        let backup = &download.key.attempt.backup;
        let id = (backup.project.clone(), backup.backup, ReadingId::mint(&*self.entropy));
        let reading = Reading::begin(self.catalog.clone(), self.clock.clone(), id, pause_max).await;
        let reading = reading.map_err(|error| match error {
            CatalogError::NotFound(_) => RdbUnreadable::Gone,
            error => RdbUnreadable::Failed(with_sources(&error)),
        })?;
        let rdb = self.opener.open(&*self.store, &download.key, &download.entry).await?;
        Ok(Box::new(KeptPieces { rdb, reading }))
    }
}

/// The first whole second at which the link's time is over.
fn end_of(now: Timestamp, LinkLifetime(seconds): LinkLifetime) -> i64 {
    now.as_second() + i64::from(now.subsec_nanosecond() > 0) + seconds
}

/// `redis_<host>_<port>_<time>.rdb`, with the shard's number where there are several.
fn file_name(manifest: &Manifest, shard: u16, entry: &ArtifactEntry) -> String {
    let harmless = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    // The port is what follows the last colon: an IPv6 address has more of them.
    let (host, port) = entry.source.address.rsplit_once(':').unwrap_or((&entry.source.address, ""));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host: String = host.chars().take(ADDRESS_CHARS_MAX).map(harmless).collect();
    let port: String = port.chars().take(5).map(harmless).collect();
    let time = manifest.created_at.strftime("%Y%m%d%H%M%S");
    if manifest.artifacts.len() > 1 {
        format!("redis_{host}_{port}_{time}_{shard:04}.rdb")
    } else {
        format!("redis_{host}_{port}_{time}.rdb")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_five_minutes_to_a_day() {
        for (seconds, allowed) in [
            (i64::MIN, false),
            (0, false),
            (299, false),
            (300, true),
            (86_400, true),
            (86_401, false),
        ] {
            assert_eq!(LinkLifetime::from_seconds(seconds).is_ok(), allowed, "{seconds}");
        }
    }

    #[test]
    fn names_are_harmless_and_differ_between_shards() {
        let mut manifest =
            Manifest::decode(include_bytes!("../../store/fixtures/manifest-v1.json")).unwrap();
        manifest.created_at = "2026-11-21T08:31:16.166Z".parse().unwrap();
        for (address, name) in [
            ("10.0.0.7:6379", "redis_10.0.0.7_6379_20261121083116.rdb"),
            ("[::1]:7000", "redis_--1_7000_20261121083116.rdb"),
            ("../a b\"\r\n/é:1", "redis_..-a-b-----_1_20261121083116.rdb"),
            ("nothing", "redis_nothing__20261121083116.rdb"),
        ] {
            manifest.artifacts[0].source.address = address.to_owned();
            assert_eq!(file_name(&manifest, 0, &manifest.artifacts[0]), name, "{address}");
        }
        manifest.artifacts[0].source.address = "x".repeat(300);
        assert!(file_name(&manifest, 0, &manifest.artifacts[0]).len() < 255);
        manifest.artifacts.push(manifest.artifacts[0].clone());
        let names = [0, 1].map(|shard| file_name(&manifest, shard, &manifest.artifacts[0]));
        assert!(names[0] != names[1] && names[1].ends_with("_0001.rdb"), "{names:?}");
    }

    #[test]
    fn a_link_never_lives_shorter_than_was_asked_for() {
        let lifetime = LinkLifetime::from_seconds(300).unwrap();
        for (now, end) in [
            ("2026-11-21T08:31:16Z", "2026-11-21T08:36:16Z"),
            ("2026-11-21T08:31:16.000000001Z", "2026-11-21T08:36:17Z"),
        ] {
            let end: Timestamp = end.parse().unwrap();
            assert_eq!(end_of(now.parse().unwrap(), lifetime), end.as_second(), "{now}");
        }
    }
}

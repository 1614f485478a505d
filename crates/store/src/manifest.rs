//! The manifest, which commits a backup set and is readable without this service.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The manifest version that this build writes.
pub const MANIFEST_VERSION: u32 = 1;

/// A complete backup set: the store contains every listed artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this document; readers refuse newer versions.
    pub version: u32,
    /// The backup.
    pub backup_id: String,
    /// Its project.
    pub project_id: String,
    /// The instance of the backup.
    pub instance_id: String,
    /// The instance's name at the time of the backup.
    pub instance_name: String,
    /// Host and port of the instance; the source may have been one of its replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_address: Option<String>,
    /// The requested RDB format, `native` or `portable`. `None` in older manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect: Option<String>,
    /// `manual`, `auto`, or `safety` for the safety backup of a restore.
    pub trigger: String,
    /// A note of the user.
    pub note: Option<String>,
    /// The window of a scheduled backup in UTC, such as `22:00-23:00`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// The minimum retention time as originally promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_until: Option<Timestamp>,
    /// The time of the request.
    pub created_at: Timestamp,
    /// The time at which its capture began.
    pub started_at: Timestamp,
    /// The time at which its capture ended.
    pub completed_at: Timestamp,
    /// Its artifacts, one per shard, in order of the shards.
    pub artifacts: Vec<ArtifactEntry>,
}

/// One artifact of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactEntry {
    /// The file name beside the manifest.
    pub file_name: String,
    /// The encoding of the RDB.
    pub encoding: Encoding,
    /// Size of the stored object, bytes.
    pub stored_bytes: u64,
    /// SHA-256 of the stored object, hexadecimal.
    pub stored_sha256: String,
    /// The RDB inside.
    pub rdb: RdbEntry,
    /// The source of the RDB.
    pub source: SourceEntry,
}

/// The encoding of an RDB in a stored object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// A sequence of zstd frames.
    Zstd,
    /// The unmodified RDB.
    None,
}

/// The RDB of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdbEntry {
    /// Its first nine bytes, such as `REDIS0011`.
    pub header: String,
    /// Its size, bytes.
    pub size_bytes: u64,
    /// Its own CRC-64, hexadecimal; `None` when the server does not compute one.
    pub crc64: Option<String>,
    /// The content; `None` in older manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ContentEntry>,
}

impl RdbEntry {
    /// Number of keys; `None` if they were not counted.
    pub fn key_count(&self) -> Option<u64> {
        match &self.content {
            Some(ContentEntry::Verified { digest, .. }) => Some(digest.key_count),
            Some(ContentEntry::Opaque { .. }) | None => None,
        }
    }
}

/// The content of an RDB, as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum ContentEntry {
    /// All bytes were decoded.
    Verified {
        /// The fingerprint of the data.
        digest: DigestEntry,
        /// Sums and lists for display; its fields may change between builds.
        report: serde_json::Value,
    },
    /// Frame and checksum are right; the content has an unknown format.
    Opaque {
        /// A warning in words.
        warning: String,
        /// The position at which reading ended, in bytes from the beginning of the RDB.
        offset: u64,
        /// The reason why reading ended.
        reason: String,
    },
}

/// A digest of a data set. Fingerprints are 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestEntry {
    /// Version of the digest's definition.
    pub version: u32,
    /// Fingerprint of all keys.
    pub keys: String,
    /// Number of keys.
    pub key_count: u64,
    /// Keys with module data that the fingerprint does not cover.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uncompared: u64,
    /// Fingerprint of all function libraries.
    pub functions: String,
    /// Fingerprint of each database with keys, in the order of their numbers.
    pub databases: Vec<DatabaseDigest>,
    /// Fingerprint of each kind of value, by its name; kinds without keys are missing.
    pub kinds: BTreeMap<String, String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A digest of one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseDigest {
    /// Number of the database.
    pub db: u64,
    /// Fingerprint of its keys.
    pub keys: String,
}

/// The server that sent an RDB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceEntry {
    /// `redis` or `valkey`.
    pub engine: String,
    /// The server's version.
    pub server_version: String,
    /// Host and port.
    pub address: String,
    /// `primary` or `replica`.
    pub role: String,
    /// Its replication id, which identifies the history of the offset.
    pub replication_id: String,
    /// The replication offset of the snapshot.
    pub replication_offset: u64,
}

/// The bytes are no valid manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are not JSON, or another document.
    #[error("not a manifest")]
    Malformed(#[from] serde_json::Error),
    /// The version does not exist.
    #[error("the manifest has version {found}, which there never was; versions begin at 1")]
    NoVersion {
        /// Its version.
        found: u32,
    },
    /// A newer build wrote the manifest.
    #[error(
        "the manifest has version {found}, this build reads up to {MANIFEST_VERSION}; use a newer \
         build"
    )]
    TooNew {
        /// Its version.
        found: u32,
    },
}

impl Manifest {
    /// Encodes the document.
    ///
    /// # Errors
    /// None in practice: JSON can express every value of the type.
    pub fn encode(&self) -> Result<Vec<u8>, ManifestError> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Total size of all RDBs, bytes.
    pub fn rdb_bytes(&self) -> u64 {
        self.artifacts.iter().fold(0, |sum, entry| sum.saturating_add(entry.rdb.size_bytes))
    }

    /// Decodes a document.
    ///
    /// # Errors
    /// [`ManifestError`] when the document is invalid, or its version is not supported.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(bytes)?;
        if version == 0 {
            return Err(ManifestError::NoVersion { found: version });
        }
        if version > MANIFEST_VERSION {
            return Err(ManifestError::TooNew { found: version });
        }
        Ok(serde_json::from_slice(bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every version that was ever written stays readable: never change this file.
    const V1: &[u8] = include_bytes!("../fixtures/manifest-v1.json");

    #[test]
    fn version_1_is_read_and_written_without_a_change() {
        let manifest = Manifest::decode(V1).unwrap();
        assert_eq!(manifest.artifacts[0].rdb.header, "VALKEY080");
        assert_eq!(
            String::from_utf8(manifest.encode().unwrap()).unwrap(),
            String::from_utf8(V1.to_vec()).unwrap()
        );
    }

    /// The same with all optional fields of later builds; never change this file.
    const V1_FULL: &[u8] = include_bytes!("../fixtures/manifest-v1-full.json");

    #[test]
    fn optional_fields_of_version_1_are_read_and_written_without_a_change() {
        let manifest = Manifest::decode(V1_FULL).unwrap();
        assert_eq!(manifest.instance_address.as_deref(), Some("10.0.0.5:6379"));
        assert_eq!(manifest.dialect.as_deref(), Some("portable"));
        assert_eq!(
            String::from_utf8(manifest.encode().unwrap()).unwrap(),
            String::from_utf8(V1_FULL.to_vec()).unwrap()
        );
    }

    #[test]
    fn the_content_is_read_back_unchanged() {
        let mut manifest = Manifest::decode(V1).unwrap();
        let digest = DigestEntry {
            version: 1,
            keys: "0f".repeat(16),
            key_count: 2,
            uncompared: 1,
            functions: "00".repeat(16),
            databases: vec![DatabaseDigest { db: 15, keys: "0f".repeat(16) }],
            kinds: BTreeMap::from([("string".to_owned(), "0f".repeat(16))]),
        };
        let report = serde_json::json!({"total": {"keys": 2}, "databases": [{"db": 15}]});
        let opaque = ContentEntry::Opaque {
            warning: "opaque: not verified".to_owned(),
            offset: 9,
            reason: "opcode 28 is unknown".to_owned(),
        };
        for content in [ContentEntry::Verified { digest, report }, opaque] {
            manifest.artifacts[0].rdb.content = Some(content);
            assert_eq!(Manifest::decode(&manifest.encode().unwrap()).unwrap(), manifest);
        }
    }

    #[test]
    fn an_unsupported_version_is_refused_with_its_number() {
        for (version, named) in [(2, "use a newer build"), (0, "there never was")] {
            let document = format!(r#"{{"version": {version}, "shape": "unknown"}}"#);
            let error = Manifest::decode(document.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(&format!("version {version}")), "{error}");
            assert!(error.contains(named), "{error}");
        }
    }
}

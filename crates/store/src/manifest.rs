//! The manifest: what commits a backup set, readable without us.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The version of the manifest that this build writes.
pub const MANIFEST_VERSION: u32 = 1;

/// A backup set, complete: every artifact that it names is in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this document; readers refuse what is newer than they know.
    pub version: u32,
    /// The backup.
    pub backup_id: String,
    /// Its project.
    pub project_id: String,
    /// The instance that it copies.
    pub instance_id: String,
    /// That instance's name at the time.
    pub instance_name: String,
    /// Host and port of that instance, where its source may have been a replica of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_address: Option<String>,
    /// `native` or `portable`: what the source was asked for. `None` in manifests of before it was
    /// noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect: Option<String>,
    /// `manual`, `auto`, or `safety` of one that a restore made of its target.
    pub trigger: String,
    /// A person's words about it.
    pub note: Option<String>,
    /// The hours, UTC, of the window of an automatic backup, such as `22:00-23:00`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// Until when it is kept at least, as it was promised at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_until: Option<Timestamp>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its capture began.
    pub started_at: Timestamp,
    /// When its capture ended.
    pub completed_at: Timestamp,
    /// Its artifacts, one per shard, in order.
    pub artifacts: Vec<ArtifactEntry>,
}

/// One artifact of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactEntry {
    /// The object's name beside the manifest.
    pub file_name: String,
    /// How the RDB is encoded in it.
    pub encoding: Encoding,
    /// Size of the stored object, bytes.
    pub stored_bytes: u64,
    /// SHA-256 of the stored object, hexadecimal.
    pub stored_sha256: String,
    /// The RDB inside.
    pub rdb: RdbEntry,
    /// Where it came from.
    pub source: SourceEntry,
}

/// How an RDB is encoded in a stored object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Frames of zstd, one after the other.
    Zstd,
    /// The RDB as it came.
    None,
}

/// An RDB as it came from the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdbEntry {
    /// Its first nine bytes, such as `REDIS0011`.
    pub header: String,
    /// Its size, bytes.
    pub size_bytes: u64,
    /// Its own CRC-64, hexadecimal; `None` when the server does not compute one.
    pub crc64: Option<String>,
    /// What it holds; `None` in manifests of before the content was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ContentEntry>,
}

impl RdbEntry {
    /// How many keys it holds; `None` where they were not counted.
    pub fn key_count(&self) -> Option<u64> {
        match &self.content {
            Some(ContentEntry::Verified { digest, .. }) => Some(digest.key_count),
            Some(ContentEntry::Opaque { .. }) | None => None,
        }
    }
}

/// What an RDB holds, as far as it could be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum ContentEntry {
    /// Every byte was followed.
    Verified {
        /// The fingerprint of the data.
        digest: DigestEntry,
        /// Sums and lists, for people: its form may grow from one build to the next.
        report: serde_json::Value,
    },
    /// Frame and checksum are right; the content is of a format that is not known.
    Opaque {
        /// What that means, in words.
        warning: String,
        /// Where reading ended, bytes from the beginning of the RDB.
        offset: u64,
        /// Why it ended there.
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
    /// Keys with data of modules that the fingerprint does not cover.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uncompared: u64,
    /// Fingerprint of all function libraries.
    pub functions: String,
    /// Fingerprint of each database that has keys, in the order of their numbers.
    pub databases: Vec<DatabaseDigest>,
    /// Fingerprint of each kind of value, by its name; kinds without keys are left out.
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
    /// Its replication id: the history that the offset counts in.
    pub replication_id: String,
    /// The replication offset of the snapshot.
    pub replication_offset: u64,
}

/// The bytes are no manifest that this build can read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not this document.
    #[error("not a manifest")]
    Malformed(#[from] serde_json::Error),
    /// Of a version that no build has written.
    #[error("the manifest has version {found}, which there never was; versions begin at 1")]
    NoVersion {
        /// Its version.
        found: u32,
    },
    /// Written by a newer build.
    #[error(
        "the manifest has version {found}, this build reads up to {MANIFEST_VERSION}; use a newer one"
    )]
    TooNew {
        /// Its version.
        found: u32,
    },
}

impl Manifest {
    /// The document's bytes.
    ///
    /// # Errors
    /// Never in practice: the type holds nothing that JSON cannot express.
    pub fn encode(&self) -> Result<Vec<u8>, ManifestError> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Size of all the RDBs, bytes.
    pub fn rdb_bytes(&self) -> u64 {
        self.artifacts.iter().fold(0, |sum, entry| sum.saturating_add(entry.rdb.size_bytes))
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`ManifestError`] when it is none, or of a version that this build does not read.
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
    fn version_1_reads_and_writes_back_to_the_byte() {
        let manifest = Manifest::decode(V1).unwrap();
        assert_eq!(manifest.artifacts[0].rdb.header, "VALKEY080");
        assert_eq!(
            String::from_utf8(manifest.encode().unwrap()).unwrap(),
            String::from_utf8(V1.to_vec()).unwrap()
        );
    }

    /// With all that came later and may be missing; just as little to be changed.
    const V1_FULL: &[u8] = include_bytes!("../fixtures/manifest-v1-full.json");

    #[test]
    fn what_version_1_may_say_besides_reads_and_writes_back_to_the_byte() {
        let manifest = Manifest::decode(V1_FULL).unwrap();
        assert_eq!(manifest.instance_address.as_deref(), Some("10.0.0.5:6379"));
        assert_eq!(manifest.dialect.as_deref(), Some("portable"));
        assert_eq!(
            String::from_utf8(manifest.encode().unwrap()).unwrap(),
            String::from_utf8(V1_FULL.to_vec()).unwrap()
        );
    }

    #[test]
    fn what_is_known_of_the_content_is_read_back_as_it_was_written() {
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
    fn a_version_that_is_not_read_is_refused_by_name() {
        for (version, named) in [(2, "use a newer one"), (0, "there never was")] {
            let document = format!(r#"{{"version": {version}, "shape": "unknown"}}"#);
            let error = Manifest::decode(document.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(&format!("version {version}")), "{error}");
            assert!(error.contains(named), "{error}");
        }
    }
}

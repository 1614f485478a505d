//! Paths: the single module that builds the names of stored objects.

use std::fmt;

use cachevault_domain::{BackupId, InstanceId, ProjectId};

use crate::Encoding;

const MANIFEST: &str = "manifest.json";
const DATA_KEY: &str = "data-key-";
/// Sorted before the probes in every list.
const STORE_ID: &str = ".cachevault-store";
/// Sorted before the objects of backups in every list.
const PROBE: &str = ".check-";

/// The folder of one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupKey {
    /// The project.
    pub project: ProjectId,
    /// The instance.
    pub instance: InstanceId,
    /// The backup.
    pub backup: BackupId,
}

impl BackupKey {
    /// The path of one attempt at this backup.
    pub fn attempt(&self, attempt: u32) -> AttemptKey {
        AttemptKey { backup: self.clone(), attempt }
    }
}

impl fmt::Display for BackupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.project, self.instance, self.backup)
    }
}

/// The path of one attempt: the folder of its artifacts and, after the commit, its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptKey {
    /// The backup.
    pub backup: BackupKey,
    /// The attempt's number, from 1.
    pub attempt: u32,
}

impl AttemptKey {
    /// The path of one shard's compressed artifact; [`ArtifactKey::encoded`] selects another
    /// encoding.
    pub fn artifact(&self, shard: u16) -> ArtifactKey {
        ArtifactKey { attempt: self.clone(), shard, encoding: Encoding::Zstd }
    }

    /// The document of the attempt's data key, sealed with this master key.
    pub(crate) fn data_key(&self, master_key: &str) -> ObjectName {
        ObjectName(format!("{self}/{DATA_KEY}{master_key}.json"))
    }

    /// The folder of all objects of the attempt.
    pub fn folder(&self) -> Folder {
        Folder::of(self)
    }

    /// The name of the manifest.
    pub fn manifest(&self) -> ObjectName {
        ObjectName(format!("{self}/{MANIFEST}"))
    }
}

impl fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/attempt-{:04}", self.backup, self.attempt)
    }
}

/// The path of one shard's artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactKey {
    /// The attempt that writes the artifact.
    pub attempt: AttemptKey,
    /// The shard's number, from 0.
    pub shard: u16,
    /// The encoding of the RDB, which determines the extension of the name.
    pub encoding: Encoding,
}

impl ArtifactKey {
    /// The path of the same shard's artifact in another encoding.
    pub fn encoded(&self, encoding: Encoding) -> Self {
        Self { encoding, ..self.clone() }
    }

    /// The file name in the attempt's folder.
    pub fn file_name(&self) -> String {
        format!("shard-{:04}{}", self.shard, suffix(self.encoding))
    }

    /// The name of the object.
    pub fn object(&self) -> ObjectName {
        ObjectName(self.to_string())
    }
}

impl fmt::Display for ArtifactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.attempt, self.file_name())
    }
}

fn suffix(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Zstd => ".rdb.zst",
        Encoding::None => ".rdb",
    }
}

/// The name of an object, built from a path or listed by a store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(pub(crate) String);

/// The kind of an object, determined by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectKind {
    /// An artifact.
    Artifact(ArtifactKey),
    /// A manifest.
    Manifest(AttemptKey),
    /// The data key of an attempt, and the id of the master key that seals it.
    DataKey(AttemptKey, String),
    /// Another object in the folder of an attempt, such as the rest of unfinished writing.
    Other(AttemptKey),
}

impl ObjectKind {
    /// The attempt whose folder contains the object.
    pub fn attempt(&self) -> &AttemptKey {
        match self {
            Self::Artifact(artifact) => &artifact.attempt,
            Self::Manifest(attempt) | Self::DataKey(attempt, _) | Self::Other(attempt) => attempt,
        }
    }
}

impl ObjectName {
    /// The complete name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The kind of the object; `None` outside of the layout of this product.
    pub fn kind(&self) -> Option<ObjectKind> {
        let mut parts = self.0.split('/');
        let mut next = || parts.next();
        let (project, instance, backup) = (next()?, next()?, next()?);
        let attempt = next()?.strip_prefix("attempt-")?.parse().ok()?;
        let (file, rest) = (next()?, next());
        let backup = BackupKey {
            project: project.parse().ok()?,
            instance: instance.parse().ok()?,
            backup: backup.parse().ok()?,
        };
        let attempt = backup.attempt(attempt);
        if !self.0.starts_with(&format!("{attempt}/")) {
            return None;
        }
        if rest.is_some() {
            return Some(ObjectKind::Other(attempt));
        }
        let artifact = [Encoding::Zstd, Encoding::None].into_iter().find_map(|encoding| {
            let shard = file.strip_prefix("shard-")?.strip_suffix(suffix(encoding))?;
            Some(attempt.artifact(shard.parse().ok()?).encoded(encoding))
        });
        Some(match artifact {
            // Only the exact name of a path is an artifact.
            Some(artifact) if artifact.to_string() == self.0 => ObjectKind::Artifact(artifact),
            _ if attempt.manifest() == *self => ObjectKind::Manifest(attempt),
            _ if let Some(id) =
                file.strip_prefix(DATA_KEY).and_then(|id| id.strip_suffix(".json")) =>
            {
                ObjectKind::DataKey(attempt, id.to_owned())
            }
            _ => ObjectKind::Other(attempt),
        })
    }

    /// The document of the store's id.
    pub(crate) fn store_id() -> Self {
        Self(STORE_ID.to_owned())
    }

    /// The object that a check of the store writes and removes.
    pub(crate) fn probe(id: BackupId) -> Self {
        Self(format!("{PROBE}{id}"))
    }

    /// The object with a wrong checksum. Parallel tests may share its name, because their results
    /// are equal.
    pub(crate) fn checksum_probe() -> Self {
        Self(format!("{PROBE}checksum"))
    }

    pub(crate) fn is_behind_probes(&self) -> bool {
        self.0.as_str() > PROBE && !self.is_probe()
    }

    pub(crate) fn is_probe(&self) -> bool {
        self.0.starts_with(PROBE)
    }

    pub(crate) fn is_manifest(&self) -> bool {
        matches!(self.kind(), Some(ObjectKind::Manifest(_)))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A folder of a store, including its subfolders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(pub(crate) String);

impl Folder {
    /// The complete store.
    pub fn all() -> Self {
        Self(String::new())
    }

    /// The folder of a backup or an attempt.
    pub(crate) fn of(key: &impl fmt::Display) -> Self {
        Self(key.to_string())
    }

    /// The folder of one attempt.
    pub fn of_attempt(attempt: &AttemptKey) -> Self {
        Self::of(attempt)
    }

    /// The folder of one instance.
    pub fn of_instance(project: &ProjectId, instance: InstanceId) -> Self {
        Self(format!("{project}/{instance}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_documented_layout() {
        let backup = BackupKey {
            project: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            instance: "5560df16-cebf-4473-95c4-d1b573c16e79".parse().unwrap(),
            backup: "4631832a-14c6-45b0-a0b3-3abd8f591ad1".parse().unwrap(),
        };
        let folder = "0123456789abcdef0123456789abcdef/5560df16-cebf-4473-95c4-d1b573c16e79/4631832a-14c6-45b0-a0b3-3abd8f591ad1";
        let attempt = backup.attempt(2);
        assert_eq!(
            attempt.artifact(1).to_string(),
            format!("{folder}/attempt-0002/shard-0001.rdb.zst")
        );
        assert_eq!(
            attempt.artifact(1).encoded(Encoding::None).to_string(),
            format!("{folder}/attempt-0002/shard-0001.rdb")
        );
        assert_eq!(attempt.manifest().as_str(), format!("{folder}/attempt-0002/manifest.json"));
    }

    #[test]
    fn a_name_determines_the_kind_of_its_object() {
        let folder = "0123456789abcdef0123456789abcdef/5560df16-cebf-4473-95c4-d1b573c16e79/4631832a-14c6-45b0-a0b3-3abd8f591ad1";
        let kind = |rest: &str| ObjectName(format!("{folder}/{rest}")).kind();
        let artifact = kind("attempt-0002/shard-0001.rdb.zst");
        let Some(ObjectKind::Artifact(key)) = artifact else { panic!("{artifact:?}") };
        assert_eq!((key.attempt.attempt, key.shard, key.encoding), (2, 1, Encoding::Zstd));
        let artifact = kind("attempt-0002/shard-0001.rdb");
        let Some(ObjectKind::Artifact(key)) = artifact else { panic!("{artifact:?}") };
        assert_eq!((key.attempt.attempt, key.shard, key.encoding), (2, 1, Encoding::None));
        assert!(matches!(kind("attempt-0002/manifest.json"), Some(ObjectKind::Manifest(_))));
        for other in
            ["shard-0001.rdb.zst.partial", "shard-1.rdb.zst", "shard-1.rdb", "manifest.json/x", "x"]
        {
            let found = kind(&format!("attempt-0002/{other}"));
            assert!(matches!(found, Some(ObjectKind::Other(_))), "{other}: {found:?}");
        }
        for foreign in ["attempt-x/manifest.json", "manifest.json", ""] {
            assert_eq!(kind(foreign), None, "{foreign}");
        }
        assert_eq!(ObjectName("lost+found".into()).kind(), None);
    }
}

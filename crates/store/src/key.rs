//! Keys: the one place where the names of stored objects are built.

use std::fmt;

use cachevault_domain::{BackupId, InstanceId, ProjectId};

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
    /// The folder of one attempt at this backup.
    pub fn attempt(&self, attempt: u32) -> AttemptKey {
        AttemptKey { backup: self.clone(), attempt }
    }
}

impl fmt::Display for BackupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.project, self.instance, self.backup)
    }
}

/// The folder of one attempt: its artifacts and, once it is committed, its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptKey {
    /// The backup.
    pub backup: BackupKey,
    /// The attempt's number, from 1.
    pub attempt: u32,
}

impl AttemptKey {
    /// The artifact of one shard.
    pub fn artifact(&self, shard: u16) -> ArtifactKey {
        ArtifactKey { attempt: self.clone(), shard }
    }

    pub(crate) fn manifest(&self) -> String {
        format!("{self}/manifest.json")
    }
}

impl fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/attempt-{:04}", self.backup, self.attempt)
    }
}

/// One shard's artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactKey {
    /// The attempt that wrote it.
    pub attempt: AttemptKey,
    /// The shard's number, from 0.
    pub shard: u16,
}

impl ArtifactKey {
    /// The object's name inside its attempt's folder.
    pub fn file_name(&self) -> String {
        format!("shard-{:04}.rdb.zst", self.shard)
    }
}

impl fmt::Display for ArtifactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.attempt, self.file_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_what_it_says() {
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
        assert_eq!(attempt.manifest(), format!("{folder}/attempt-0002/manifest.json"));
    }
}

//! Drills: loading a backup into a throw-away server, to prove that it holds the same data.

use jiff::Timestamp;

use crate::BackupId;

/// The longest name of a server in a proof, in Unicode scalar values.
pub const PROOF_SERVER_CHARS_MAX: usize = 64;

/// That a drill found the same data in a server as in the backup's source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// When the drill ended.
    pub at: Timestamp,
    /// The server that loaded the backup, such as `redis 7.0.15`.
    pub server: String,
    /// Values of modules that were counted, and not compared.
    pub uncompared: u64,
}

impl Proof {
    /// A proof by the server of this name. What is longer than [`PROOF_SERVER_CHARS_MAX`] is cut:
    /// no proof is worth losing for a name.
    pub fn new(at: Timestamp, server: &str, uncompared: u64) -> Self {
        Self { at, server: server.chars().take(PROOF_SERVER_CHARS_MAX).collect(), uncompared }
    }
}

/// That a drill proved nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillFailure {
    /// When the drill ended.
    pub at: Timestamp,
    /// What was wrong, for an operator.
    pub reason: String,
}

/// The proven backup that an instance can go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvenBackup {
    /// The backup.
    pub backup: BackupId,
    /// When the backup was asked for.
    pub created_at: Timestamp,
    /// When it was last proven.
    pub proof_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_server_is_cut_by_characters_not_bytes() {
        let proof = |server: &str| Proof::new(Timestamp::UNIX_EPOCH, server, 0).server;
        assert_eq!(proof("redis 7.0.15"), "redis 7.0.15");
        assert_eq!(proof(&"é".repeat(64)), "é".repeat(64));
        assert_eq!(proof(&"é".repeat(65)), "é".repeat(64));
    }
}

//! Instances: the deployments that we adopt, never provision.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::{
    Address, EngineKind, InstanceId, InstanceSettings, JobKind, ProjectId, ProvenBackup, Role,
    ServerVersion,
};

/// The longest name of an instance, in characters.
pub const INSTANCE_NAME_CHARS_MAX: usize = 64;

/// The text cannot name an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an instance name has 1 to 64 characters: letters, digits, `_` and `-`")]
pub struct InvalidInstanceName;

/// An instance's name: 1 to 64 letters, digits, `_` and `-`; unique in its project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceName(String);

impl InstanceName {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for InstanceName {
    type Err = InvalidInstanceName;

    fn from_str(text: &str) -> Result<Self, InvalidInstanceName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        let fits = (1..=INSTANCE_NAME_CHARS_MAX).contains(&text.len());
        if fits && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidInstanceName)
        }
    }
}

/// A secret, encrypted and authenticated with the master key.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedSecret(pub Vec<u8>);

impl fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedSecret({} bytes)", self.0.len())
    }
}

/// How to reach an instance, with its secrets sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedConnection {
    /// Where it listens.
    pub address: Address,
    /// The ACL user.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<SealedSecret>,
    /// Whether it is reached by TLS.
    pub tls: bool,
    /// Certificates to trust instead of the operating system's, PEM.
    pub tls_ca_pem: Option<String>,
    /// The certificate chain that we present, PEM.
    pub tls_certificate_pem: Option<String>,
    /// The key of that certificate, PEM.
    pub tls_key_pem: Option<SealedSecret>,
}

/// What a server said of itself at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Redis or Valkey.
    pub engine: EngineKind,
    /// The engine's version.
    pub version: ServerVersion,
    /// Primary or replica.
    pub role: Role,
    /// Replicas that are connected and online.
    pub replicas_online: u32,
    /// Memory in use by the data set and its overhead, bytes.
    pub used_memory_bytes: u64,
    /// The configured limit, bytes; 0 means none.
    pub max_memory_bytes: u64,
    /// Physical memory of the server's machine, bytes; 0 where it does not tell.
    pub system_memory_bytes: u64,
    /// Keys in all databases.
    pub keys: u64,
    /// Databases that hold keys.
    pub databases_used: u32,
}

impl Observation {
    /// How much the data may grow to, bytes: the configured limit, or else the machine's memory.
    pub fn capacity_bytes(&self) -> u64 {
        match self.max_memory_bytes {
            0 => self.system_memory_bytes,
            limit => limit,
        }
    }
}

/// Whether an instance answered when it was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It answered.
    Reachable,
    /// It did not, and this is what was wrong.
    Unreachable {
        /// The reason, for an operator.
        reason: String,
        /// How many looks in a row it did not answer.
        looks: u32,
    },
}

impl Health {
    /// Looks in a row that a server may leave unanswered, because it forks or blocks for a moment,
    /// before it counts as down.
    pub const LOOKS_MISSED_MAX: u32 = 2;

    /// Whether a look that failed for this reason, or not, changes if the instance counts as down:
    /// `Some(false)` where it does from now on, `Some(true)` where it does no longer.
    pub fn change(&self, failure: Option<&str>) -> Option<bool> {
        match (self, failure) {
            (_, None) => self.is_down().then_some(true),
            (Self::Reachable, Some(_)) => (Self::LOOKS_MISSED_MAX == 0).then_some(false),
            (Self::Unreachable { looks, .. }, Some(_)) => {
                (*looks == Self::LOOKS_MISSED_MAX).then_some(false)
            }
        }
    }

    /// Whether the instance counts as down.
    pub fn is_down(&self) -> bool {
        matches!(self, Self::Unreachable { looks, .. } if *looks > Self::LOOKS_MISSED_MAX)
    }
}

/// What can be done with an instance now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceState {
    /// It is in service, also while it is being backed up.
    Running,
    /// A backup is being restored into it.
    Restoring,
    /// It does not answer.
    Down,
}

/// One registered deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// Its name.
    pub name: InstanceName,
    /// How to reach it.
    pub connection: SealedConnection,
    /// What it last said of itself.
    pub observation: Observation,
    /// When it said so.
    pub observed_at: Timestamp,
    /// Whether it answered when it was last asked.
    pub health: Health,
    /// When it was adopted.
    pub created_at: Timestamp,
    /// When its settings last changed; the same as `created_at` before the first change.
    pub changed_at: Timestamp,
    /// What is being done with it now.
    pub operation: Option<JobKind>,
    /// Of its proven backups whose files are there and will stay, the one created last.
    pub proven: Option<ProvenBackup>,
    /// What its owner says about it.
    pub settings: InstanceSettings,
}

impl Instance {
    /// What can be done with it now. A server that forks for us may be slow to answer: during an
    /// operation it is not down.
    pub fn state(&self) -> InstanceState {
        match self.operation {
            Some(JobKind::Restore) => InstanceState::Restoring,
            None if self.health.is_down() => InstanceState::Down,
            _ => InstanceState::Running,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for good in ["a", "orders-1", &"x".repeat(64)] {
            assert!(good.parse::<InstanceName>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "ä", "a/b", &"x".repeat(65)] {
            assert!(bad.parse::<InstanceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_sealed_secret_does_not_print_its_bytes() {
        assert_eq!(format!("{:?}", SealedSecret(vec![1, 2, 3])), "SealedSecret(3 bytes)");
    }
}

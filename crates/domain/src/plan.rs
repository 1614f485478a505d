//! What a restore would do, and what stands in its way: known before anything is touched.

use crate::server::unknown_command_cure;
use crate::{Address, EngineKind, RestoreWay, ServerVersion};

/// How a target takes in an RDB that it loads natively.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loading {
    /// Into its memory beside the old data, which it drops when all is loaded: the old data stays
    /// if loading fails, and memory must hold both.
    Swap,
    /// Straight into its memory, which is empty.
    Direct,
    /// To its disk, then into its memory, which it empties first.
    Disk,
}

impl Loading {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Swap, Self::Direct, Self::Disk];

    /// Its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Swap => "swap",
            Self::Direct => "direct",
            Self::Disk => "disk",
        }
    }
}

/// Why a restore cannot be done. Each says what is wrong and what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Blocker {
    /// The content was never understood, and a target that meets what it does not know exits.
    #[error(
        "the content of the backup is not verified ({reason}), and a server that cannot load it exits; \
         use a version of this service that knows the format, or --unverified, which needs native loading \
         of the whole backup into a server of the same vendor and of at least the source's version"
    )]
    Opaque {
        /// Why not.
        reason: String,
    },
    /// The target does not load this version of the format.
    #[error(
        "the backup has the format {header}, and {} {version} loads up to {loads}; {advice}",
        engine.as_str()
    )]
    Format {
        /// The backup's format.
        header: String,
        /// The target's engine.
        engine: EngineKind,
        /// The target's version.
        version: ServerVersion,
        /// The newest format that it loads.
        loads: String,
        /// What to do.
        advice: String,
    },
    /// The target is newer than this build knows, and so is the format.
    #[error(
        "the backup has the format {header}, and whether {} {version} loads it is not known to this build, \
         which knows servers up to {newest_known}; use a newer version of this service, or let the target \
         decide with --unverified",
        engine.as_str()
    )]
    FormatUnknown {
        /// The backup's format.
        header: String,
        /// The target's engine.
        engine: EngineKind,
        /// The target's version.
        version: ServerVersion,
        /// The newest version of the engine that this build knows, such as `redis 8.10`.
        newest_known: String,
    },
    /// The target exits while it loads streams of the backup.
    #[error(
        "{} {version} exits while it loads a stream whose counters contradict each other, and the backup has \
         {count} of them, such as {example}; mend them at the source with `XSETID` and `XGROUP SETID … \
         ENTRIESREAD` and make a new backup, or leave those keys out with a filter",
        engine.as_str()
    )]
    InconsistentStreams {
        /// How many such streams there are.
        count: u64,
        /// The place of one of them in the backup.
        example: String,
        /// The target's engine.
        engine: EngineKind,
        /// The target's version.
        version: ServerVersion,
    },
    /// A proof is demanded, and the data cannot be compared.
    #[error(
        "a proof is demanded, and the data cannot be compared after the restore: {reason}; \
         restore without demanding it"
    )]
    Unprovable {
        /// Why not.
        reason: String,
    },
    /// The backup has keys in databases that the target does not have.
    #[error(
        "the backup has keys in database {highest}, and the target has {has} databases; \
         set `databases {}` or more in the target's configuration and restart it",
        highest + 1
    )]
    Databases {
        /// The highest database with keys.
        highest: u64,
        /// How many databases the target has.
        has: u64,
    },
    /// The data does not fit into the target's memory.
    #[error(
        "the data needs about {needed_bytes} bytes of memory, and the target may use {limit_bytes} ({limit}); \
         raise that or choose a larger target; if you know better what the data needs, say so: --needed-bytes"
    )]
    Memory {
        /// What the data needs.
        needed_bytes: u64,
        /// What there is.
        limit_bytes: u64,
        /// What limits it, such as `maxmemory`.
        limit: String,
    },
    /// The data belongs to modules that the target does not have.
    #[error("the backup has values of the modules {}, and the target has no modules loaded; load them first", names.join(", "))]
    Modules {
        /// Names of their types.
        names: Vec<String>,
    },
    /// The target cannot write to its disk.
    #[error(
        "the target's last {what} failed, so it could not keep the restored data; see its log, make room on its \
         disk or mend its permissions, and let it save once"
    )]
    CannotSave {
        /// What it tried: a background save, or an AOF rewrite.
        what: &'static str,
    },
    /// The target takes no writes for now.
    #[error("the target takes no writes now ({detail}); {advice}")]
    RefusesWrites {
        /// The server's words.
        detail: String,
        /// What to do.
        advice: String,
    },
    /// The target follows a primary.
    #[error("the target is a replica of `{primary}`; restore into its primary instead")]
    Replica {
        /// Its primary.
        primary: Address,
    },
    /// A Sentinel watches the target and would fail it over while it loads.
    #[error(
        "a Sentinel watches the target, and would take it for failed while it loads and undo the restore; \
         tell the Sentinels `SENTINEL REMOVE <name>` first and `SENTINEL MONITOR` after, or choose the way `keys`"
    )]
    Sentinel,
    /// The target's user may not run a command that the restore needs.
    #[error(
        "the target denies `{command}` to this user ({detail}); {}",
        cure(command, detail, grant)
    )]
    Denied {
        /// The command.
        command: String,
        /// The server's words.
        detail: String,
        /// The missing rights.
        grant: String,
    },
    /// The target replicates by TLS, and we have no certificate to show it.
    #[error(
        "the target replicates by TLS, and this service has no certificate to show it; \
         set --restore-tls-cert-file and --restore-tls-key-file to one that the target's `tls-ca-cert-file` trusts"
    )]
    NoCertificate,
    /// What is asked for cannot be done in the chosen way.
    #[error("{wish} is not possible in the way `{}`; {advice}", way.as_str())]
    NotThisWay {
        /// What was asked for.
        wish: String,
        /// The way.
        way: RestoreWay,
        /// What to do.
        advice: String,
    },
}

/// What to do about a command that is denied.
fn cure(command: &str, detail: &str, grant: &str) -> String {
    let otherwise = match command {
        "FLUSHALL" => "; or keep what the target holds (`--merge`), or restore into an empty one",
        _ => "",
    };
    match unknown_command_cure(detail) {
        Some(cure) => format!("{cure}{otherwise}"),
        None => format!("grant it: ACL SETUSER <name> {grant}{otherwise}"),
    }
}

/// What a restore would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePlan {
    /// How the data gets into the target.
    pub way: RestoreWay,
    /// Why that way.
    pub because: String,
    /// How the target takes it in.
    pub loading: Loading,
    /// The backup's format, such as `REDIS0011`.
    pub header: String,
    /// The target's engine.
    pub engine: EngineKind,
    /// The target's version.
    pub version: ServerVersion,
    /// Keys in the backup; `None` where its content is not known.
    pub keys: Option<u64>,
    /// Keys in the target, which the restore removes.
    pub replaced_keys: u64,
    /// Memory that the data needs, bytes; 0 where it is not known.
    pub needed_bytes: u64,
    /// Whether the data is read back and compared before anyone may write.
    pub prove: bool,
    /// Why the data cannot be compared afterwards, or not all of it; `None` where it can.
    pub unprovable: Option<String>,
    /// What stands in its way; empty when it can be done.
    pub blockers: Vec<Blocker>,
    /// What to know before it is done.
    pub notes: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_says(blocker: &Blocker, words: &[&str]) {
        let text = blocker.to_string();
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn blockers_of_unknown_content_name_the_way_past_them() {
        let reason = "type 34 is unknown".to_owned();
        let opaque = Blocker::Opaque { reason: reason.clone() };
        assert_says(&opaque, &[&reason, "--unverified", "same vendor", "the source's version"]);
        let engine = EngineKind::Redis;
        let version = ServerVersion { major: 9, minor: 0, patch: 0 };
        let (header, newest_known) = ("REDIS0016".to_owned(), "redis 8.10".to_owned());
        let unknown = Blocker::FormatUnknown { header, engine, version, newest_known };
        assert_says(&unknown, &["REDIS0016", "redis 9.0.0", "redis 8.10", "--unverified"]);
        let example = "the key at byte 42".to_owned();
        let streams = Blocker::InconsistentStreams { count: 3, example, engine, version };
        assert_says(&streams, &["redis 9.0.0", "3 of them", "byte 42", "XSETID", "ENTRIESREAD"]);
        assert_says(&Blocker::Unprovable { reason: reason.clone() }, &[&reason]);
    }

    #[test]
    fn a_command_that_was_renamed_is_not_to_be_granted() {
        let denied = |command: &str, detail: &str| {
            let (command, grant) = (command.to_owned(), "+x".to_owned());
            Blocker::Denied { command, detail: detail.to_owned(), grant }.to_string()
        };
        let renamed = denied("BGSAVE", "ERR unknown command 'BGSAVE'");
        assert!(renamed.contains("rename-command") && !renamed.contains("grant"), "{renamed}");
        let no_right = denied("BGSAVE", "NOPERM this user has no permissions");
        assert!(!no_right.contains("rename-command") && no_right.contains("SETUSER <name> +x"));
        for detail in ["ERR unknown command 'FLUSHALL'", "NOPERM"] {
            assert!(denied("FLUSHALL", detail).contains("--merge"), "{detail}");
        }
    }
}

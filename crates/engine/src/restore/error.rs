//! Why a restore, or a part of it, failed.
//!
//! A key is told by its place in the backup, from 1, as `cachevault inspect --keys` lists them: its name
//! is somebody's data, and errors are kept and logged.

use std::io;

use cachevault_domain::{Address, FailureCode, ProbeError};

use crate::error::{CaptureError, VerifyError};

/// A restore failed; what became of the target is told beside it.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The target cannot be reached or used.
    #[error(transparent)]
    Target(#[from] ProbeError),
    /// The target refused a command.
    #[error("`{address}` refused `{command}`: {detail}")]
    Refused {
        /// The target.
        address: Address,
        /// The command's first words.
        command: String,
        /// The server's words.
        detail: String,
    },
    /// The artifact cannot be read or is not what it was.
    #[error(transparent)]
    Artifact(#[from] VerifyError),
    /// We cannot listen for the target.
    #[error("cannot listen for the target on port {port}: {error}; choose one with --restore-port")]
    Listen {
        /// The port; 0 means any.
        port: u16,
        /// The operating system's words.
        error: io::Error,
    },
    /// The certificate for targets that replicate by TLS cannot be used.
    #[error(
        "the certificate for targets that replicate by TLS cannot be used: {0}; \
         see --restore-tls-cert-file and --restore-tls-key-file"
    )]
    Certificate(String),
    /// The target did not connect to us.
    #[error(
        "`{address}` did not connect to us at `{offered}` within {seconds} s{came}; check firewalls, and name \
         an address that it can reach with --restore-host"
    )]
    NotConnected {
        /// The target.
        address: Address,
        /// Where we listened.
        offered: Address,
        /// How long we waited.
        seconds: u64,
        /// Who came in its place, in words that follow; empty where nobody did.
        came: String,
    },
    /// The target began again and again.
    #[error("`{address}` broke off loading {times} times; see its log for the reason")]
    KeepsFailing {
        /// The target.
        address: Address,
        /// How often.
        times: u32,
    },
    /// The target stopped answering.
    #[error("`{address}` has not answered for {seconds} s; it may have ended, see its log")]
    TargetGone {
        /// The target.
        address: Address,
        /// For how long.
        seconds: u64,
    },
    /// The target's process ended while it loaded the backup.
    #[error(
        "`{address}` ended while it loaded the backup ({last_seen}) and refuses connections since; its log \
         says why. If it ends again when it is started, it holds the backup as its RDB file: put the file of \
         an older backup in its place, such as the safety backup's"
    )]
    TargetEnded {
        /// The target.
        address: Address,
        /// What it said of itself last.
        last_seen: String,
    },
    /// The target was restarted while it was being restored.
    #[error("`{address}` was restarted during the restore")]
    TargetRestarted {
        /// The target.
        address: Address,
    },
    /// Somebody else made the target follow another primary, or none.
    #[error("somebody else changed whom `{address}` follows: {detail}")]
    Interfered {
        /// The target.
        address: Address,
        /// What was seen.
        detail: String,
    },
    /// It took too long.
    #[error("the restore was not done after {seconds} s, the limit")]
    TooLong {
        /// The limit.
        seconds: u64,
    },
    /// The target's data could not be read back.
    #[error("the target's data could not be read back: {0}")]
    Unproven(#[source] CaptureError),
    /// The backup, or what the target sent, is not understood.
    #[error("the data cannot be compared: {0}")]
    NotComparable(String),
    /// The target holds other data than the backup.
    #[error(
        "the target's data differs from the backup's: its digest is {found}, the backup's {expected}"
    )]
    Differs {
        /// The target's.
        found: String,
        /// The backup's.
        expected: String,
    },
    /// The target could not write its data to its disk.
    #[error("`{address}` could not make the restored data durable: {detail}")]
    NotDurable {
        /// The target.
        address: Address,
        /// What it said.
        detail: String,
    },
    /// The target has no memory left.
    #[error(
        "`{address}` has no memory left for {key}: {detail}; raise its maxmemory, choose an \
         eviction policy, or restore fewer keys with a filter"
    )]
    OutOfMemory {
        /// The target.
        address: Address,
        /// What was written: a key by its place in the backup.
        key: String,
        /// The server's words.
        detail: String,
    },
    /// The login may not write the key or run the command.
    #[error(
        "`{address}` does not allow `{command}` for {key}: {detail}; give the user of the \
         restore this command and every key (`~* +@write +@read +select`)"
    )]
    KeyDenied {
        /// The target.
        address: Address,
        /// What was written: a key by its place in the backup.
        key: String,
        /// The command.
        command: &'static str,
        /// The server's words.
        detail: String,
    },
    /// The target is a replica, or became one.
    #[error(
        "`{address}` refused {key} because it is a read-only replica; restore into its primary"
    )]
    ReadOnly {
        /// The target.
        address: Address,
        /// What was written: a key by its place in the backup.
        key: String,
    },
    /// The key belongs to another node of a cluster.
    #[error(
        "{key} does not belong to `{address}`, which says `{detail}`; restore into the node \
         that has its slot, with a filter for the keys of that node"
    )]
    Elsewhere {
        /// The target.
        address: Address,
        /// What was written: a key by its place in the backup.
        key: String,
        /// The server's words.
        detail: String,
    },
    /// The target cannot read the value.
    #[error(
        "`{address}` cannot read the value of {key}: {detail}; a newer version or another \
         vendor wrote it, or it belongs to a module that the target lacks: restore into a server \
         like the one that was backed up, or leave the key out with a filter"
    )]
    Unreadable {
        /// The target.
        address: Address,
        /// What was written: a key by its place in the backup.
        key: String,
        /// The server's words.
        detail: String,
    },
    /// The target refused a command about a key for another reason.
    #[error("`{address}` refused `{command}` for {key}: {detail}")]
    KeyRefused {
        /// The target.
        address: Address,
        /// What was written: a key by its place in the backup.
        key: String,
        /// The command.
        command: &'static str,
        /// The server's words.
        detail: String,
    },
    /// The target lacks a database of the backup.
    #[error(
        "`{address}` has no database {database}: {detail}; raise its `databases`, or restore one \
         that it has with a filter"
    )]
    NoDatabase {
        /// The target.
        address: Address,
        /// Number of the database.
        database: u64,
        /// The server's words.
        detail: String,
    },
    /// The target holds keys of the backup already, and nothing was written.
    #[error(
        "`{address}` holds {count} keys of the backup already, such as those at the places {} of its \
         list of keys; nothing was written; choose whether they are replaced or skipped",
        .examples.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
    )]
    KeysExist {
        /// The target.
        address: Address,
        /// How many.
        count: u64,
        /// Places of some of them in the backup, from 1.
        examples: Vec<u64>,
    },
    /// Somebody wrote a key of the backup while it was being restored.
    #[error(
        "somebody wrote {key} at `{address}` during the restore; keep clients away from the \
         target, or choose whether such keys are replaced or skipped"
    )]
    KeyAppeared {
        /// The target.
        address: Address,
        /// The key, by its place in the backup.
        key: String,
    },
    /// The target has a library of functions of the backup already.
    #[error(
        "`{address}` has the functions of `{library}` already: {detail}; delete them, or choose \
         whether they are replaced or skipped"
    )]
    FunctionsExist {
        /// The target.
        address: Address,
        /// The library's name.
        library: String,
        /// The server's words.
        detail: String,
    },
    /// A value is too large for one command and cannot be written by several.
    #[error(
        "the value of {key} cannot be written: {what} exceeds {limit} bytes; restore by \
         replication, raise the target's proto-max-bulk-len, or leave the key out with a filter"
    )]
    TooLarge {
        /// The key, by its place in the backup.
        key: String,
        /// What is too large.
        what: &'static str,
        /// The most that can be, bytes.
        limit: u64,
    },
    /// A connection ended before everything was written.
    #[error("the connection to `{address}` broke off during the restore: {detail}")]
    BrokenOff {
        /// The target.
        address: Address,
        /// The operating system's words, or ours.
        detail: String,
    },
    /// The store gave nothing for too long.
    #[error(
        "the store has given nothing of the backup for {seconds} s; see whether it is in order"
    )]
    StoreStalled {
        /// For how long.
        seconds: u64,
    },
    /// It was told to stop.
    #[error("cancelled")]
    Cancelled,
}

impl RestoreError {
    /// The reason as the DCS API knows it.
    pub fn failure_code(&self) -> FailureCode {
        match self {
            Self::NotConnected { .. }
            | Self::TooLong { .. }
            | Self::StoreStalled { .. }
            | Self::Target(ProbeError::TimedOut { .. }) => FailureCode::TimedOut,
            Self::Artifact(error) => error.failure_code(),
            Self::Listen { .. } | Self::Certificate(_) => FailureCode::ToolFailed,
            _ => FailureCode::RestoreSyncFailed,
        }
    }

    /// Whether the target answered a command with an error: it did not do it.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. }
                | Self::OutOfMemory { .. }
                | Self::KeyDenied { .. }
                | Self::ReadOnly { .. }
                | Self::Elsewhere { .. }
                | Self::Unreadable { .. }
                | Self::KeyRefused { .. }
                | Self::NoDatabase { .. }
                | Self::KeyAppeared { .. }
                | Self::FunctionsExist { .. }
        )
    }

    /// Whether the target's user may not run the command, or there is none of this name.
    pub fn is_denial(&self) -> bool {
        matches!(self, Self::Refused { detail, .. }
            if detail.starts_with("NOPERM") || detail.contains("unknown command"))
    }

    /// Whether a child of the server stands in the way of another.
    pub(crate) fn is_in_progress(&self) -> bool {
        matches!(self, Self::Refused { detail, .. } if detail.contains("in progress"))
    }

    /// Whether the target's process is known to have ended.
    pub fn is_target_ended(&self) -> bool {
        matches!(self, Self::TargetEnded { .. })
    }

    /// Whether nothing accepts connections at the target.
    pub fn is_connection_refused(&self) -> bool {
        matches!(self, Self::Target(ProbeError::Refused { .. }))
    }

    /// Whether another attempt may succeed without anyone doing anything, as long as the target
    /// was not touched.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Target(error) => matches!(
                error,
                ProbeError::Refused { .. }
                    | ProbeError::Unreachable { .. }
                    | ProbeError::TimedOut { .. }
                    | ProbeError::UnknownHost { .. }
            ),
            Self::Artifact(error) => error.may_pass(),
            _ => false,
        }
    }
}

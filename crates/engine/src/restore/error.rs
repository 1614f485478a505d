//! Why a restore, or a part of it, failed.

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
        "`{address}` did not connect to us at `{offered}` within {seconds} s; check firewalls, and name an \
         address that it can reach with --restore-host"
    )]
    NotConnected {
        /// The target.
        address: Address,
        /// Where we listened.
        offered: Address,
        /// How long we waited.
        seconds: u64,
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
    Unreadable(String),
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
            | Self::Target(ProbeError::TimedOut { .. }) => FailureCode::TimedOut,
            Self::Artifact(error) => error.failure_code(),
            Self::Listen { .. } | Self::Certificate(_) => FailureCode::ToolFailed,
            _ => FailureCode::RestoreSyncFailed,
        }
    }

    /// Whether the target's user may not run the command, or there is none of this name.
    pub(crate) fn is_denial(&self) -> bool {
        matches!(self, Self::Refused { detail, .. }
            if detail.starts_with("NOPERM") || detail.contains("unknown command"))
    }

    /// Whether the command itself was allowed.
    pub(crate) fn is_about_an_argument(&self) -> bool {
        matches!(self, Self::Refused { .. }) && !self.is_denial()
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

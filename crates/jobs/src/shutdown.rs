//! Stopping in two phases.

use tokio_util::sync::CancellationToken;

/// Tells everything that runs to end: first politely, then at once.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Begin nothing new; let what runs come to its end.
    pub soft: CancellationToken,
    /// Break off what runs, in order: undo, record, leave.
    pub hard: CancellationToken,
}

//! Watches the free space of the service's own disks and records when it becomes short.

use std::time::Duration;

use cachevault_app::{App, DiskShortage};
use cachevault_domain::EventKind;

use crate::shutdown::Shutdown;

/// How often the free space is measured.
const INTERVAL: Duration = Duration::from_secs(2);

/// Records the beginning and the end of a shortage of disk space as events of the service.
#[derive(Debug)]
pub struct DiskWatch {
    app: App,
    is_short: bool,
}

impl DiskWatch {
    /// A watch that begins while there is space enough.
    pub fn new(app: App) -> Self {
        Self { app, is_short: false }
    }

    /// Measures until the soft phase of `shutdown`.
    pub async fn run(mut self, shutdown: &Shutdown) {
        loop {
            self.round().await;
            tokio::select! {
                () = shutdown.soft.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Measures once. A change that cannot be recorded is recorded by a later round.
    pub async fn round(&mut self) {
        let (kind, detail) = match (self.is_short, self.shortage().await) {
            (false, Some(shortage)) => (EventKind::DiskLow, Some(shortage.to_string())),
            (true, None) => (EventKind::DiskRecovered, None),
            _ => return,
        };
        let now = self.app.clock.now();
        match self.app.catalog.record_service_event(kind, detail.as_deref(), now).await {
            Ok(()) => {
                self.is_short = kind == EventKind::DiskLow;
                tracing::warn!(event = kind.as_str(), detail, "disk space of the service changed");
            }
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                event = kind.as_str(),
                detail,
                "cannot record the disk space of the service"
            ),
        }
    }

    async fn shortage(&self) -> Option<DiskShortage> {
        let disk = &self.app.disk;
        let checked = if self.is_short { disk.check_recovered().await } else { disk.check().await };
        checked.err()
    }
}

//! Watches the free space of the service's own disks and records when it becomes short.

use std::time::Duration;

use cachevault_app::{App, DiskShortage};
use cachevault_domain::EventKind;

use crate::shutdown::Shutdown;

/// How often the free space is measured.
const INTERVAL: Duration = Duration::from_secs(2);

const OF_DISK: [EventKind; 2] = [EventKind::DiskLow, EventKind::DiskRecovered];

/// Records the beginning and the end of a shortage of disk space as events of the service.
#[derive(Debug)]
pub struct DiskWatch {
    app: App,
    /// What was recorded last; unknown until the catalog was asked: the service may have ended
    /// during a shortage.
    is_short: Option<bool>,
}

impl DiskWatch {
    /// A watch that goes on where the catalog's events end.
    pub fn new(app: App) -> Self {
        Self { app, is_short: None }
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
        let Some(is_short) = self.recorded().await else { return };
        let (kind, detail) = match (is_short, self.shortage(is_short).await) {
            (false, Some(shortage)) => (EventKind::DiskLow, Some(shortage.to_string())),
            (true, None) => (EventKind::DiskRecovered, None),
            _ => return,
        };
        let now = self.app.clock.now();
        match self.app.catalog.record_service_event(kind, detail.as_deref(), now).await {
            Ok(()) => {
                self.is_short = Some(kind == EventKind::DiskLow);
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

    /// Whether a shortage is what was recorded last; none while the catalog cannot tell.
    async fn recorded(&mut self) -> Option<bool> {
        if self.is_short.is_none() {
            match self.app.catalog.newest_service_event(OF_DISK).await {
                Ok(newest) => self.is_short = Some(newest == Some(EventKind::DiskLow)),
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot look up the disk space that was recorded last"
                ),
            }
        }
        self.is_short
    }

    async fn shortage(&self, is_short: bool) -> Option<DiskShortage> {
        let disk = &self.app.disk;
        let checked = if is_short { disk.check_recovered().await } else { disk.check().await };
        checked.err()
    }
}

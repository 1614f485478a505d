//! Claims jobs and lets them run, several at a time.

use std::sync::Arc;
use std::time::Duration;

use cachevault_catalog::CatalogError;
use cachevault_domain::{Backoff, JobKind, Lease, NodeId, ShrinkRule};
use cachevault_engine::{CaptureLimits, RestoreLimits};
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::runner::Runner;
use crate::shutdown::Shutdown;

/// Removals that run at a time.
const REMOVALS_MAX: usize = 4;

/// Drills that run at a time: each takes as much memory as its data.
const DRILLS_MAX: usize = 1;

/// How jobs are to run.
#[derive(Debug, Clone, Copy)]
pub struct JobSettings {
    /// Captures that run at a time.
    pub running_max: usize,
    /// Captures of instances with the same host that run at a time, on all nodes together.
    pub host_max: u32,
    /// Length of a lease; it is extended three times as often.
    pub lease: Duration,
    /// How often to look for jobs when nobody says that there are any.
    pub poll: Duration,
    /// When to try again after a failure.
    pub backoff: Backoff,
    /// Attempts in all, those that crashed included.
    pub attempts_max: u32,
    /// Whether to capture from a replica in sync where there is one.
    pub prefer_replica: bool,
    /// zstd level of artifacts; they are not compressed without one.
    pub zstd_level: Option<i32>,
    /// Bounds of a capture.
    pub capture: CaptureLimits,
    /// Bounds of a restore.
    pub restore: RestoreLimits,
    /// Servers that a drill may try one after the other.
    pub drill_servers: u32,
    /// When a backup has shrunk, and the last larger one is held.
    pub shrink: ShrinkRule,
    /// Longest time that reading a stored backup back may take.
    pub verify: Duration,
    /// Longest time that committing a backup, or removing its files, may take.
    pub commit: Duration,
}

impl JobSettings {
    pub(crate) fn lease_end(&self, now: Timestamp) -> Timestamp {
        now.checked_add(self.lease).unwrap_or(now)
    }
}

/// Claims jobs for one node.
#[derive(Debug)]
pub struct Worker {
    runner: Arc<Runner>,
    node: NodeId,
}

impl Worker {
    /// A worker of `node`, whose data folder no other process uses.
    pub fn new(runner: Runner, node: NodeId) -> Self {
        Self { runner: Arc::new(runner), node }
    }

    /// Claims and runs jobs until `shutdown`: after its soft phase no more are claimed, in its
    /// hard phase the running ones are broken off. Returns when none runs any more.
    ///
    /// Leases that an earlier process of the same node held are let go first.
    pub async fn run(&self, shutdown: &Shutdown) {
        let (catalog, clock) = (&self.runner.app.catalog, &self.runner.app.clock);
        match catalog.release_node(self.node, clock.now()).await {
            Ok(count) => self.runner.figures.leases_released(count),
            // They run out by themselves.
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "leases of the last run could not be released"
            ),
        }
        // Removals do not wait behind captures: somebody is waiting for them.
        tokio::join!(
            self.lane(JobKind::Capture, self.runner.settings.running_max, shutdown),
            self.lane(JobKind::Remove, REMOVALS_MAX, shutdown),
            self.lane(JobKind::Restore, self.runner.settings.running_max, shutdown),
            self.lane(JobKind::Drill, DRILLS_MAX, shutdown),
        );
    }

    /// Claims and runs jobs of one kind, at most `running_max` at a time.
    async fn lane(&self, kind: JobKind, running_max: usize, shutdown: &Shutdown) {
        let permits = Arc::new(Semaphore::new(running_max));
        let mut running = JoinSet::new();
        loop {
            while running.try_join_next().is_some() {}
            let permit = tokio::select! {
                biased;
                () = shutdown.soft.cancelled() => break,
                permit = Arc::clone(&permits).acquire_owned() => permit,
            };
            let Ok(permit) = permit else { break };
            match self.claim(kind).await {
                Ok(Some(lease)) => {
                    let (runner, stop) = (Arc::clone(&self.runner), shutdown.hard.clone());
                    running.spawn(async move {
                        runner.run(&lease, &stop).await;
                        drop(permit);
                    });
                    continue;
                }
                Ok(None) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, kind = kind.as_str(), "no job could be claimed");
                }
            }
            drop(permit);
            self.rest(kind, shutdown).await;
        }
        while running.join_next().await.is_some() {}
    }

    async fn claim(&self, kind: JobKind) -> Result<Option<Lease>, CatalogError> {
        let (app, settings) = (&self.runner.app, &self.runner.settings);
        let now = app.clock.now();
        let until = settings.lease_end(now);
        match kind {
            JobKind::Capture => {
                app.catalog.claim_capture(self.node, settings.host_max, now, until).await
            }
            _ => app.catalog.claim_job(kind, self.node, now, until).await,
        }
    }

    async fn rest(&self, kind: JobKind, shutdown: &Shutdown) {
        tokio::select! {
            () = shutdown.soft.cancelled() => {}
            () = self.runner.app.catalog.wait_for_job(kind) => {}
            () = tokio::time::sleep(self.runner.settings.poll) => {}
        }
    }
}

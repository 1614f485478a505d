//! Follows policies: begins automatic backups in their windows, tries again, records what was missed,
//! and lets backups go whose time is over.

use std::time::Duration;

use cachevault_app::App;
use cachevault_catalog::{CatalogError, DuePolicy, NewScheduledBackup, Turn, Turned};
use cachevault_domain::{
    Agenda, BackupFormat, BackupId, Decision, Failure, FailureCode, InstanceId, JobId, JobKind,
    MissedWindow, NewBackup, RdbDialect, Trigger, Window, with_sources,
};
use jiff::Timestamp;

use crate::figures::JobFigures;
use crate::shutdown::Shutdown;

/// How often it is looked whether anything is due.
const LOOK: Duration = Duration::from_secs(1);
/// What is done of what is due before it is looked again.
const ROUND_MAX: u32 = 64;
/// Backups of an instance that go in one transaction.
const REMOVALS_MAX: usize = 8;

/// Does what is due by itself. Several may run, on one node or on many: each turn of a policy is
/// one transaction, and is done once.
#[derive(Debug)]
pub struct Scheduler {
    /// The use cases' context.
    pub app: App,
    /// What to do about windows in which the service did not run, where a policy does not say.
    pub missed: MissedWindow,
    /// How many backups with files an instance may have.
    pub backups_max: usize,
    /// What is counted.
    pub figures: JobFigures,
}

impl Scheduler {
    /// Does what is due until the soft phase of `shutdown`.
    pub async fn run(&self, shutdown: &Shutdown) {
        loop {
            let is_more = tokio::select! {
                biased;
                () = shutdown.soft.cancelled() => return,
                is_more = self.round() => is_more,
            };
            if is_more {
                continue;
            }
            tokio::select! {
                () = shutdown.soft.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Does some of what is due. Whether there may be more that can be done now.
    pub async fn round(&self) -> bool {
        let is_more = self.follow_round().await;
        self.retain_round().await | is_more
    }

    async fn follow_round(&self) -> bool {
        let due = self.app.catalog.due_policies(self.app.clock.now(), ROUND_MAX).await;
        let due = match due {
            Ok(due) => due,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "what is due cannot be told");
                return false;
            }
        };
        let mut failed = 0;
        for policy in &due {
            // What fails for one is due again in the next round, and must not keep the others.
            if let Err(error) = self.follow(policy).await {
                let (instance, reason) = (policy.instance, with_sources(&error));
                tracing::error!(%instance, reason, "a policy could not be followed");
                failed += 1;
            }
        }
        !due.is_empty() && failed == 0
    }

    async fn retain_round(&self) -> bool {
        let due = self.app.catalog.instances_to_retain(self.app.clock.now(), ROUND_MAX).await;
        let due = match due {
            Ok(due) => due,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "it cannot be told whose backups may have to go");
                return false;
            }
        };
        let mut failed = 0;
        for instance in &due {
            if let Err(error) = self.retain(*instance).await {
                let reason = with_sources(&error);
                tracing::error!(%instance, reason, "it cannot be told which backups have to go");
                failed += 1;
            }
        }
        !due.is_empty() && failed == 0
    }

    async fn retain(&self, instance: InstanceId) -> Result<(), CatalogError> {
        let app = &self.app;
        let jobs = [(); REMOVALS_MAX].map(|()| JobId::mint(&*app.entropy));
        let now = app.clock.now();
        let gone = app.catalog.retain_backups(instance, self.backups_max, &jobs, now).await?;
        for backup in gone {
            tracing::info!(%instance, %backup, "a backup has to go: its time is over, or there are too many");
        }
        Ok(())
    }

    async fn follow(&self, due: &DuePolicy) -> Result<(), CatalogError> {
        let now = self.app.clock.now();
        let missed = due.says.missed.unwrap_or(self.missed);
        let plan = &due.says.plan;
        let decision = due.agenda.decide(plan, missed, due.instance, due.tried, now);
        let (turn, then) = self.turn(due, decision, now);
        let turned = self.app.catalog.turn_policy(due, &turn, &then).await?;
        let instance = due.instance;
        match (turned, &turn) {
            (Turned::Done, Turn::Begin(NewScheduledBackup { backup, window, .. })) => {
                tracing::info!(%instance, backup = %backup.id, %window, "an automatic backup is asked for");
            }
            (Turned::Done, Turn::Miss(missed, failure)) => {
                self.figures.failed(JobKind::Capture, failure.code);
                let reason = &failure.reason;
                tracing::warn!(%instance, window = %missed.window, reason, "a window was missed");
            }
            (Turned::Busy(kind), _) => {
                self.figures.failed(JobKind::Capture, FailureCode::InstanceBusy);
                let kind = kind.as_str();
                tracing::warn!(%instance, kind, "an automatic backup found its instance busy");
            }
            (Turned::Done, Turn::Rest) | (Turned::Superseded, _) => {}
        }
        Ok(())
    }

    fn turn(&self, due: &DuePolicy, decision: Decision, now: Timestamp) -> (Turn, Agenda) {
        match decision {
            Decision::Rest(then) => (Turn::Rest, then),
            Decision::Begin(window, then) => (Turn::Begin(self.backup_for(due, window, now)), then),
            Decision::Miss(window, then) => {
                let Window { begin, end } = window;
                let reason = format!("no service ran in the window from {begin} to {end}");
                let failure = Failure { code: FailureCode::InstanceBusy, reason };
                (Turn::Miss(self.backup_for(due, window, now), failure), then)
            }
        }
    }

    fn backup_for(&self, due: &DuePolicy, window: Window, now: Timestamp) -> NewScheduledBackup {
        let backup = NewBackup {
            id: BackupId::mint(&*self.app.entropy),
            job: JobId::mint(&*self.app.entropy),
            project: due.project.clone(),
            instance: due.instance,
            trigger: Trigger::Automatic,
            format: BackupFormat::Rdb,
            dialect: RdbDialect::Native,
            note: None,
            created_at: now,
        };
        NewScheduledBackup { backup, window, keep_until: due.says.keep.until(now) }
    }
}

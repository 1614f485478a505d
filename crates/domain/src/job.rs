//! Jobs: durable units of work, made of steps, run under a lease.

use std::time::Duration;

use jiff::Timestamp;

use crate::{BackupId, InstanceId, JobId, ProjectId, SealedSecret};

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobKind {
    /// Makes a backup.
    Capture,
    /// Removes a backup's files.
    Remove,
    /// Puts a backup's data into an instance.
    Restore,
    /// Proves a backup with a throw-away server.
    Drill,
}

impl JobKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Capture, Self::Remove, Self::Restore, Self::Drill];

    /// The kind's name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Remove => "remove",
            Self::Restore => "restore",
            Self::Drill => "drill",
        }
    }

    /// Whether it needs the instance for itself: one such job per instance at a time.
    pub fn is_exclusive(self) -> bool {
        matches!(self, Self::Capture | Self::Restore)
    }
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Waits until its time.
    Queued,
    /// A worker has a lease on it.
    Leased,
    /// Done.
    Done,
    /// Given up.
    Failed,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Queued, Self::Leased, Self::Done, Self::Failed];

    /// The state's name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Leased => "leased",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// A durable unit of work on one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// The instance concerned; of a restore the target.
    pub instance: InstanceId,
    /// The backup concerned; of a restore the one that is read.
    pub backup: BackupId,
    /// Where it is.
    pub state: JobState,
    /// How often it was claimed.
    pub attempt: u32,
    /// Why the last attempt did not finish, for an operator.
    pub last_error: Option<String>,
}

/// How far the attempts at something have come that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Which one runs, or was the last; 0 before the first.
    pub number: u32,
    /// Why the one before ended, or what the next waits for.
    pub last_error: Option<String>,
}

/// The right to run a job until a time.
///
/// Every write of a worker carries its lease's attempt number; once somebody else claimed the
/// job the number is stale and the write is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    /// What to do.
    pub kind: JobKind,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// The instance concerned; of a restore the target.
    pub instance: InstanceId,
    /// The backup concerned; of a restore the one that is read.
    pub backup: BackupId,
    /// Which try this is, from 1; the fencing token.
    pub attempt: u32,
    /// How many tries before this one failed. Tries that were stopped or crashed do not count.
    pub failures: u32,
}

/// Why a job goes back into the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeue {
    /// The attempt failed.
    Failed,
    /// The service is being stopped.
    Stopped,
}

/// A finished step in a job's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRecord {
    /// The step's name.
    pub step: String,
    /// The attempt that finished it.
    pub attempt: u32,
    /// What it left for the later steps, sealed.
    pub output: SealedSecret,
}

/// When to try again after a failure that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Pause after the first failure.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// Attempts in all, the first included.
    pub attempts_max: u32,
}

impl Backoff {
    /// When to try again after the failure number `failures` (from 1) at `now`; `None` when
    /// there were enough. The pause doubles each time; `jitter` (any value) takes up to a
    /// quarter of it away, so that jobs that failed together do not come back together.
    pub fn next_at(&self, failures: u32, now: Timestamp, jitter: u8) -> Option<Timestamp> {
        if failures >= self.attempts_max {
            return None;
        }
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let pause = doubled.min(self.longest);
        let pause = pause - pause.mul_f64(f64::from(jitter) / 256.0 / 4.0);
        now.checked_add(pause).ok()
    }
}

/// What a capture waits for whose host has as many running as it may, for an operator.
pub fn waiting_for_host(host: &str, running: u64) -> String {
    match running {
        1 => format!("waiting: another backup of host {host} runs"),
        _ => format!("waiting: {running} other backups of host {host} run"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_secs(2),
        longest: Duration::from_secs(60),
        attempts_max: 8,
    };

    fn pause_secs(failures: u32, jitter: u8) -> Option<f64> {
        let now = Timestamp::UNIX_EPOCH;
        BACKOFF.next_at(failures, now, jitter).map(|at| at.duration_since(now).as_secs_f64())
    }

    #[test]
    fn the_pause_doubles_to_a_limit_and_ends() {
        let pauses: Vec<_> = (1..=8).map(|failures| pause_secs(failures, 0)).collect();
        let seconds = [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0].map(Some);
        assert_eq!(pauses, [&seconds[..], &[None]].concat());
    }

    #[test]
    fn jitter_takes_at_most_a_quarter() {
        for jitter in 0..=u8::MAX {
            let pause = pause_secs(3, jitter).unwrap();
            assert!((6.0..=8.0).contains(&pause), "{jitter}: {pause}");
        }
    }
}

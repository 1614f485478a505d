//! What jobs count, since the process began.

use std::collections::BTreeMap;

use cachevault_domain::{FailureCode, JobKind};
use jiff::SignedDuration;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Seconds: from a small instance to the longest capture that is allowed by default.
const SECONDS: [f64; 12] =
    [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 21600.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    kind: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SealedWith {
    master_key: String,
}

/// How an attempt at a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptEnd {
    /// The job is done.
    Done,
    /// The job has failed.
    Failed,
    /// The attempt has failed, and there will be another.
    Retried,
    /// It was broken off, and goes on with the next start of a service.
    Stopped,
    /// Another attempt has begun, or the end could not be recorded.
    Lost,
}

impl AttemptEnd {
    const ALL: [Self; 5] = [Self::Done, Self::Failed, Self::Retried, Self::Stopped, Self::Lost];

    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Retried => "retried",
            Self::Stopped => "stopped",
            Self::Lost => "lost",
        }
    }
}

/// Counters of all runners, schedulers and tenders of a process; clones count together.
#[derive(Debug, Clone)]
pub struct JobFigures {
    attempts: Family<Ended, Histogram, fn() -> Histogram>,
    failures: Family<Failed, Counter>,
    captured_bytes: Counter,
    stored_bytes: Counter,
    leases_lost: Counter,
    leases_released: Counter,
    data_keys: Family<SealedWith, Gauge>,
}

impl Default for JobFigures {
    /// Every series there can be is there from the beginning: an increase from nothing is none.
    fn default() -> Self {
        let figures = Self {
            attempts: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            failures: Family::default(),
            captured_bytes: Counter::default(),
            stored_bytes: Counter::default(),
            leases_lost: Counter::default(),
            leases_released: Counter::default(),
            data_keys: Family::default(),
        };
        for kind in JobKind::ALL {
            for end in AttemptEnd::ALL {
                drop(figures.attempts.get_or_create(&ended(kind, end)));
            }
            for code in FailureCode::ALL {
                drop(figures.failures.get_or_create(&failed(kind, code)));
            }
        }
        figures
    }
}

fn ended(kind: JobKind, end: AttemptEnd) -> Ended {
    Ended { kind: kind.as_str(), outcome: end.as_str() }
}

fn failed(kind: JobKind, code: FailureCode) -> Failed {
    Failed { kind: kind.as_str(), code: code.as_str() }
}

impl JobFigures {
    /// Shows the figures in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "job_attempt_duration_seconds",
            "How long attempts at jobs took, by kind and how they ended",
            self.attempts.clone(),
        );
        registry.register(
            "failures",
            "Jobs that failed, removals that have to be tried again, and windows without a backup, by the code of the failure",
            self.failures.clone(),
        );
        registry.register(
            "captured_bytes",
            "RDB bytes of backups that were made",
            self.captured_bytes.clone(),
        );
        registry.register(
            "stored_bytes",
            "Bytes that those backups take in the store",
            self.stored_bytes.clone(),
        );
        registry.register(
            "leases_lost",
            "Leases that ran out while their worker still ran",
            self.leases_lost.clone(),
        );
        registry.register(
            "leases_released",
            "Leases that the last process of this node left when it ended",
            self.leases_released.clone(),
        );
        registry.register(
            "data_keys",
            "Keys of stored backups by the master key that they need, as the last sweep found them",
            self.data_keys.clone(),
        );
    }

    pub(crate) fn attempt_ended(&self, kind: JobKind, end: AttemptEnd, took: SignedDuration) {
        self.attempts.get_or_create(&ended(kind, end)).observe(took.as_secs_f64().max(0.0));
    }

    pub(crate) fn failed(&self, kind: JobKind, code: FailureCode) {
        self.failures.get_or_create(&failed(kind, code)).inc();
    }

    pub(crate) fn captured(&self, rdb_bytes: u64, stored_bytes: u64) {
        self.captured_bytes.inc_by(rdb_bytes);
        self.stored_bytes.inc_by(stored_bytes);
    }

    /// Takes over how many keys are sealed with which master key, by its id.
    pub(crate) fn keys_counted(&self, keys: BTreeMap<String, u64>) {
        self.data_keys.clear();
        for (master_key, count) in keys {
            let gauge = self.data_keys.get_or_create(&SealedWith { master_key });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn lease_lost(&self) {
        self.leases_lost.inc();
    }

    pub(crate) fn leases_released(&self, count: u64) {
        self.leases_released.inc_by(count);
    }
}

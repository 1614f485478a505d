//! How far a running capture is, readable from outside while it runs.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use cachevault_domain::Progress;

/// Counts what a capture has done. Shared between the capture and who reports on it.
#[derive(Debug, Default)]
pub struct Meter {
    received_bytes: AtomicU64,
    /// Exact when the server announces a length.
    total_bytes: AtomicU64,
    /// A guess, used while nothing better is known.
    guessed_bytes: AtomicU64,
    keys_done: AtomicU64,
    keys_total: AtomicU64,
    /// The most that was ever shown, in hundredths of a percent: progress never goes back.
    shown: AtomicU16,
    has_written: AtomicBool,
    phase: Mutex<String>,
}

/// What a meter shows at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterReading {
    /// RDB bytes received.
    pub received_bytes: u64,
    /// The share that is done, as well as can be known.
    pub progress: Progress,
    /// What is being done or waited for, for an operator.
    pub phase: String,
}

impl Meter {
    /// What it shows now.
    pub fn read(&self) -> MeterReading {
        let received_bytes = self.received_bytes.load(Ordering::Relaxed);
        let total_bytes = self.total_bytes.load(Ordering::Relaxed);
        let keys_total = self.keys_total.load(Ordering::Relaxed);
        let progress = if total_bytes > 0 {
            Progress::of(received_bytes, total_bytes)
        } else if keys_total > 0 {
            Progress::of(self.keys_done.load(Ordering::Relaxed), keys_total)
        } else {
            Progress::of(received_bytes, self.guessed_bytes.load(Ordering::Relaxed))
        };
        let shown = self.shown.fetch_max(progress.hundredths(), Ordering::Relaxed);
        let progress = progress.max(Progress::from_hundredths(shown));
        let phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner).clone();
        MeterReading { received_bytes, progress, phase }
    }

    /// Says what is being done or waited for.
    pub fn enter(&self, phase: &str) {
        phase.clone_into(&mut self.phase.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether a restore by commands may have changed anything at its target.
    pub fn has_written(&self) -> bool {
        self.has_written.load(Ordering::Relaxed)
    }

    pub(crate) fn set_written(&self, has_written: bool) {
        self.has_written.store(has_written, Ordering::Relaxed);
    }

    pub(crate) fn add_received(&self, bytes: u64) {
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_received(&self, bytes: u64) {
        self.received_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_total(&self, bytes: u64) {
        self.total_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_guess(&self, bytes: u64) {
        self.guessed_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_keys(&self, done: u64, total: u64) {
        self.keys_done.store(done, Ordering::Relaxed);
        self.keys_total.store(total, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_length_beats_keys_and_keys_beat_a_guess() {
        let meter = Meter::default();
        assert_eq!(meter.read().progress, Progress::NONE);
        meter.add_received(50);
        meter.set_guess(1000);
        assert_eq!(meter.read().progress.to_string(), "5.00");
        meter.set_keys(3, 10);
        assert_eq!(meter.read().progress.to_string(), "30.00");
        meter.set_total(100);
        assert_eq!(meter.read().progress.to_string(), "50.00");
        meter.enter("receiving");
        assert_eq!(meter.read().phase, "receiving");
    }

    #[test]
    fn a_better_measure_never_takes_progress_back() {
        let meter = Meter::default();
        meter.add_received(50);
        meter.set_guess(100);
        assert_eq!(meter.read().progress.to_string(), "50.00");
        meter.set_total(1000);
        assert_eq!(meter.read().progress.to_string(), "50.00");
    }
}

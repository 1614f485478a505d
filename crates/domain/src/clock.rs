//! Time and randomness as parameters.

use std::fmt;

use jiff::Timestamp;

/// Tells the time. Production uses [`SystemClock`]; tests move a clock of their own.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// The machine's clock: the only place where the product reads it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one implementation that reads the clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A source of unpredictable bytes, from which ids, keys and secrets are minted.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Fills `bytes` with unpredictable values.
    fn fill(&self, bytes: &mut [u8]);
}

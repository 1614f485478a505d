use std::sync::Mutex;

use cachevault_domain::{Clock, Entropy};
use jiff::{SignedDuration, Timestamp};

/// A clock that advances only by calls.
#[derive(Debug)]
pub struct MovedClock(Mutex<Timestamp>);

impl MovedClock {
    pub fn at(moment: &str) -> Self {
        Self(Mutex::new(moment.parse().expect("a moment such as 2026-11-21T08:31:16Z")))
    }

    pub fn advance(&self, by: SignedDuration) {
        let mut now = self.0.lock().expect("no test panicked while holding the clock");
        *now = now.checked_add(by).expect("a moment in range");
    }
}

impl Clock for MovedClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().expect("no test panicked while holding the clock")
    }
}

/// Deterministic bytes that look random.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<u64>);

impl SeededEntropy {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        let mut state = self.0.lock().expect("no test panicked while holding the seed");
        for byte in bytes {
            // SplitMix64 (Steele, Lea, Flood 2014).
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = *state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (z ^ (z >> 31)) as u8;
        }
    }
}

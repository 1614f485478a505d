//! The heaviest prefixes, counted in bounded memory.
//!
//! At most twice [`COUNTERS`] prefixes have a counter. When the limit is reached, the weight at
//! rank [`COUNTERS`] is subtracted from all, and counters without a rest are dropped. The error of
//! a counter is therefore at most the sum of the subtracted weights, which is at most the total
//! weight divided by [`COUNTERS`].

use std::collections::HashMap;

use crate::report::{PrefixSums, TEXT_BYTES_MAX, shown};

const COUNTERS: usize = 4096;
const DELIMITER: u8 = b':';
/// Parts of a name that count as prefixes.
const DEPTH: usize = 2;

/// Counts prefixes.
#[derive(Debug)]
pub(super) struct Prefixes {
    top: usize,
    counters: HashMap<Box<[u8]>, Counter>,
    error: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counter {
    keys: u64,
    weight: u64,
}

impl Prefixes {
    pub(super) fn new(top: usize) -> Self {
        Self { top, counters: HashMap::new(), error: 0 }
    }

    pub(super) fn add(&mut self, name: &[u8], weight: u64) {
        let name = &name[..name.len().min(TEXT_BYTES_MAX)];
        let ends = name.iter().enumerate().filter(|(_, byte)| **byte == DELIMITER);
        for (end, _) in ends.take(DEPTH) {
            let prefix = &name[..=end];
            let counter = match self.counters.get_mut(prefix) {
                Some(counter) => counter,
                None => self.counters.entry(prefix.into()).or_default(),
            };
            counter.keys += 1;
            counter.weight += weight;
        }
        if self.counters.len() > 2 * COUNTERS {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        let mut weights: Vec<_> = self.counters.values().map(|counter| counter.weight).collect();
        let at = weights.len() - COUNTERS;
        let (_, &mut taken, _) = weights.select_nth_unstable(at);
        self.error += taken;
        self.counters.retain(|_, counter| {
            counter.weight -= counter.weight.min(taken);
            counter.weight > 0
        });
    }

    /// The heaviest prefixes, the heaviest first; and the maximum error of their weights.
    pub(super) fn finish(self) -> (Vec<PrefixSums>, u64) {
        let mut counters: Vec<_> = self.counters.into_iter().collect();
        counters.sort_unstable_by(|(left, l), (right, r)| {
            r.weight.cmp(&l.weight).then_with(|| left.cmp(right))
        });
        counters.truncate(self.top);
        let sums = |(prefix, counter): (Box<[u8]>, Counter)| PrefixSums {
            prefix: shown(&prefix),
            keys: counter.keys,
            memory_bytes: counter.weight,
        };
        (counters.into_iter().map(sums).collect(), self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heavy_prefixes_remain_among_many_light_ones_within_the_error() {
        let mut prefixes = Prefixes::new(3);
        let mut total = 0;
        for n in 0..100_000u64 {
            prefixes.add(format!("one-off-{n}:x").as_bytes(), 100);
            prefixes.add(b"users:1:name", 50);
            total += 150 + 50;
        }
        assert!(prefixes.counters.len() <= 2 * COUNTERS);
        let (top, error) = prefixes.finish();
        assert!(error <= total / COUNTERS as u64, "{error}");
        for (found, prefix) in top.iter().zip(["users:", "users:1:"]) {
            assert_eq!(found.prefix, prefix);
            assert!(found.memory_bytes <= 5_000_000 && found.memory_bytes + error >= 5_000_000);
        }
    }

    #[test]
    fn few_prefixes_are_counted_exactly() {
        let mut prefixes = Prefixes::new(10);
        for name in ["a:1", "a:2", "b:c:d:e", "none"] {
            prefixes.add(name.as_bytes(), 10);
        }
        let (top, error) = prefixes.finish();
        let found: Vec<_> =
            top.iter().map(|p| (p.prefix.as_str(), p.keys, p.memory_bytes)).collect();
        assert_eq!((found, error), (vec![("a:", 2, 20), ("b:", 1, 10), ("b:c:", 1, 10)], 0));
    }
}

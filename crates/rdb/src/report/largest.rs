//! The largest keys.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::report::LargeKey;

/// Collects the largest keys.
#[derive(Debug)]
pub(super) struct Largest {
    max: usize,
    heap: BinaryHeap<Reverse<Ranked>>,
    offered: u64,
}

/// Ordered by size; among equal sizes the earlier key is the larger one.
#[derive(Debug)]
struct Ranked {
    bytes: u64,
    order: Reverse<u64>,
    key: LargeKey,
}

impl Largest {
    pub(super) fn new(max: usize) -> Self {
        Self { max, heap: BinaryHeap::new(), offered: 0 }
    }

    /// Adds the key if it is among the largest; only then `key` is called.
    #[inline]
    pub(super) fn offer(&mut self, bytes: u64, key: impl FnOnce() -> LargeKey) {
        let is_full = self.heap.len() >= self.max;
        if is_full && self.heap.peek().is_none_or(|Reverse(least)| least.bytes >= bytes) {
            return;
        }
        if is_full {
            self.heap.pop();
        }
        self.offered += 1;
        self.heap.push(Reverse(Ranked { bytes, order: Reverse(self.offered), key: key() }));
    }

    /// The keys, the largest first.
    pub(super) fn finish(self) -> Vec<LargeKey> {
        let sorted = self.heap.into_sorted_vec();
        sorted.into_iter().map(|Reverse(ranked)| ranked.key).collect()
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.bytes, self.order).cmp(&(other.bytes, other.order))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

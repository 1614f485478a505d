//! A table of keys in bounded memory.

use std::ops::RangeInclusive;

/// A key: the hash of its name and the fingerprint of its content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) key: u128,
    pub(super) fingerprint: u128,
}

/// Hashes are distributed evenly, so their upper bits give the approximate position.
const ENTRIES_PER_BUCKET: usize = 8;
/// An entry with its flag and its share of a bucket.
const ENTRY_BYTES: u64 =
    (size_of::<Entry>() + size_of::<bool>() + size_of::<usize>() / ENTRIES_PER_BUCKET) as u64;
const FIRST_ENTRIES: usize = 1024;

/// The result of a lookup.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The key exists with the same content.
    Same,
    /// The key exists with other content.
    Changed,
    /// The key does not exist.
    Missing,
    /// The key was looked up before.
    Twice,
}

/// A key occurs twice.
#[derive(Debug)]
pub(super) struct KeyTwice;

/// The keys of a range of hashes. The range begins at a given hash and is as large as the memory
/// allows. The number of keys is not needed in advance.
#[derive(Debug)]
pub(super) struct Table {
    range: RangeInclusive<u128>,
    room: usize,
    /// Sorted by key after `seal`.
    entries: Vec<Entry>,
    seen: Vec<bool>,
    /// The start of each bucket, and the end of the last one.
    starts: Vec<usize>,
    /// The shift that maps a key to its bucket.
    shift: u32,
}

impl Table {
    /// A table for keys from `first` on.
    pub(super) fn new(first: u128, budget_bytes: u64) -> Self {
        let room = usize::try_from(budget_bytes / ENTRY_BYTES).unwrap_or(usize::MAX);
        let room = room.max(2);
        Self {
            range: first..=u128::MAX,
            room,
            entries: Vec::new(),
            seen: Vec::new(),
            starts: Vec::new(),
            shift: 0,
        }
    }

    /// Whether the range contains a key.
    pub(super) fn wants(&self, key: u128) -> bool {
        self.range.contains(&key)
    }

    /// Inserts a key of the range. When the table is full, it drops the upper half for a later
    /// pass.
    pub(super) fn insert(&mut self, entry: Entry) {
        if self.entries.len() == self.room {
            let half = self.room / 2;
            let (_, last, _) = self.entries.select_nth_unstable_by_key(half - 1, |entry| entry.key);
            self.range = *self.range.start()..=last.key;
            self.entries.truncate(half);
            if !self.wants(entry.key) {
                return;
            }
        }
        self.grow();
        self.entries.push(entry);
    }

    /// Doubles the capacity up to the limit. The allocator remaps such large blocks without
    /// copying.
    fn grow(&mut self) {
        let len = self.entries.len();
        if len == self.entries.capacity() {
            self.entries.reserve_exact(len.max(FIRST_ENTRIES).min(self.room - len));
        }
    }

    /// Completes the table. Lookups are possible afterwards.
    pub(super) fn seal(&mut self) -> Result<(), KeyTwice> {
        self.entries.sort_unstable_by_key(|entry| entry.key);
        self.seen = vec![false; self.entries.len()];
        self.index();
        let is_strict = self.entries.windows(2).all(|pair| pair[0].key < pair[1].key);
        if is_strict { Ok(()) } else { Err(KeyTwice) }
    }

    fn index(&mut self) {
        let buckets = self.entries.len() / ENTRIES_PER_BUCKET + 1;
        let span = *self.range.end() - *self.range.start();
        self.shift = (u128::BITS - span.leading_zeros()).saturating_sub(buckets.ilog2());
        let last = self.bucket(*self.range.end());
        let mut starts = Vec::with_capacity(last + 2);
        for (at, entry) in self.entries.iter().enumerate() {
            let begun = self.bucket(entry.key) + 1;
            starts.resize(starts.len().max(begun), at);
        }
        starts.resize(last + 2, self.entries.len());
        self.starts = starts;
    }

    /// The bucket of a key in the range.
    fn bucket(&self, key: u128) -> usize {
        let bucket = (key - self.range.start()).checked_shr(self.shift).unwrap_or_default();
        bucket as usize
    }

    /// Looks up a key and marks it as seen.
    pub(super) fn find(&mut self, key: u128, fingerprint: u128) -> Found {
        let Some(at) = self.position(key) else { return Found::Missing };
        if std::mem::replace(&mut self.seen[at], true) {
            Found::Twice
        } else if self.entries[at].fingerprint == fingerprint {
            Found::Same
        } else {
            Found::Changed
        }
    }

    /// Drops all keys that were looked up. Returns whether any key is left.
    pub(super) fn keep_unseen(&mut self) -> bool {
        let mut seen = self.seen.iter();
        self.entries.retain(|_| seen.next() == Some(&false));
        self.seen = vec![false; self.entries.len()];
        self.index();
        !self.entries.is_empty()
    }

    /// Whether the table contains a key that was never looked up.
    pub(super) fn is_unseen(&self, key: u128) -> bool {
        self.wants(key) && self.position(key).is_some_and(|at| !self.seen[at])
    }

    /// The start of the next table, if this one does not reach the end.
    pub(super) fn next_first(&self) -> Option<u128> {
        self.range.end().checked_add(1)
    }

    fn position(&self, key: u128) -> Option<usize> {
        let bucket = self.bucket(key);
        let (from, to) = (self.starts[bucket], self.starts[bucket + 1]);
        let found = self.entries[from..to].binary_search_by_key(&key, |entry| entry.key);
        found.ok().map(|at| from + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u128) -> Entry {
        // Distributed like a hash.
        Entry {
            key: number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
            fingerprint: number,
        }
    }

    #[test]
    fn ranges_one_after_the_other_have_every_key_once_within_the_room() {
        for (keys, room) in [(0, 10), (1, 2), (10, 10), (11, 10), (1000, 16), (1000, 2)] {
            let (mut first, mut found) = (Some(0), 0);
            while let Some(from) = first {
                let mut table = Table::new(from, room * ENTRY_BYTES);
                for entry in (0..keys).map(entry) {
                    if table.wants(entry.key) {
                        table.insert(entry);
                    }
                    assert!(table.entries.capacity() as u64 <= room);
                }
                table.seal().unwrap();
                let wanted: Vec<_> =
                    (0..keys).map(entry).filter(|entry| table.wants(entry.key)).collect();
                for entry in wanted {
                    assert!(table.is_unseen(entry.key));
                    assert_eq!(table.find(entry.key, entry.fingerprint), Found::Same);
                    found += 1;
                }
                first = table.next_first();
                assert!(!table.keep_unseen());
            }
            assert_eq!(found, keys, "room for {room}");
        }
    }

    #[test]
    fn what_differs_or_comes_twice_is_told() {
        let mut table = Table::new(0, 1 << 10);
        table.insert(entry(1));
        table.seal().unwrap();
        assert_eq!(table.find(entry(2).key, 2), Found::Missing);
        assert_eq!(table.find(entry(1).key, 2), Found::Changed);
        assert_eq!(table.find(entry(1).key, 1), Found::Twice);
        let mut table = Table::new(0, 1 << 10);
        (1..9).for_each(|number| table.insert(entry(number)));
        table.seal().unwrap();
        assert_eq!(table.find(entry(3).key, 3), Found::Same);
        assert!(table.keep_unseen());
        assert!((0..20).all(|n| table.is_unseen(entry(n).key) == ((1..9).contains(&n) && n != 3)));
        let mut table = Table::new(0, 1 << 10);
        table.insert(entry(1));
        table.insert(entry(1));
        assert!(table.seal().is_err());
    }
}

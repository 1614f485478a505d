//! A table of keys in a given amount of memory.

use std::ops::RangeInclusive;

/// A key: the hash of its name, and the fingerprint of what it holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) key: u128,
    pub(super) fingerprint: u128,
}

/// Hashes are spread evenly, so their upper bits tell nearly where in the table they are.
const ENTRIES_PER_BUCKET: usize = 8;
/// With the mark whether it was seen, and its share of a bucket.
const ENTRY_BYTES: u64 =
    (size_of::<Entry>() + size_of::<bool>() + size_of::<usize>() / ENTRIES_PER_BUCKET) as u64;
const FIRST_ENTRIES: usize = 1024;

/// What the table knows of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is there with the same content.
    Same,
    /// It is there with other content.
    Changed,
    /// It is not there.
    Missing,
    /// It was asked for before.
    Twice,
}

/// A key is in the table twice.
#[derive(Debug)]
pub(super) struct KeyTwice;

/// The keys whose hashes fall into a range: as large a range from its beginning on as there is
/// room for. How many keys will come need not be known.
#[derive(Debug)]
pub(super) struct Table {
    range: RangeInclusive<u128>,
    room: usize,
    /// Sorted by key once the table is sealed.
    entries: Vec<Entry>,
    seen: Vec<bool>,
    /// Where each bucket begins, and where the last one ends.
    starts: Vec<usize>,
    /// By how many bits a key is shifted to give its bucket.
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

    /// Whether a key falls into the range.
    pub(super) fn wants(&self, key: u128) -> bool {
        self.range.contains(&key)
    }

    /// Takes a key that is wanted. Where there is no room, the upper half is let go for later.
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

    /// Doubles, but never beyond the room that was given. The system's allocator moves the pages
    /// of so large a piece and does not copy it.
    fn grow(&mut self) {
        let len = self.entries.len();
        if len == self.entries.capacity() {
            self.entries.reserve_exact(len.max(FIRST_ENTRIES).min(self.room - len));
        }
    }

    /// All keys have come; from here on they can be found.
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

    /// The bucket of a key in the range; there are never more than a word can count.
    fn bucket(&self, key: u128) -> usize {
        let bucket = (key - self.range.start()).checked_shr(self.shift).unwrap_or_default();
        bucket as usize
    }

    /// Looks a key up and marks it as seen.
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

    /// Lets go of all keys that were looked up; whether there are others.
    pub(super) fn keep_unseen(&mut self) -> bool {
        let mut seen = self.seen.iter();
        self.entries.retain(|_| seen.next() == Some(&false));
        self.seen = vec![false; self.entries.len()];
        self.index();
        !self.entries.is_empty()
    }

    /// Whether a key is in the table and was never looked up.
    pub(super) fn is_unseen(&self, key: u128) -> bool {
        self.wants(key) && self.position(key).is_some_and(|at| !self.seen[at])
    }

    /// Where the next table begins, if this one does not reach to the end.
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
        // Spread like a hash.
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

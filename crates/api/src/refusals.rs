//! Limits the audit records of refused calls. The first calls of a kind are recorded individually,
//! later ones with decreasing frequency. Any client can send such calls, so the number of records
//! and kinds is bounded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

/// Individually recorded calls of a kind; equal to the failures that lock a key or a user.
const ONE_BY_ONE: u64 = 5;
/// The time without a call after which a kind is counted from 0 again.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(10);
const KINDS_MAX: usize = 4096;
const RECORDS_MAX: u32 = 60;
const WINDOW: SignedDuration = SignedDuration::from_mins(1);

/// Counters of recently refused calls.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Arc<Mutex<State>>);

/// A kind of refused calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RefusalKind {
    /// The client address.
    pub(crate) address: Option<IpAddr>,
    /// The existing key or user that the call claimed.
    pub(crate) who: Option<String>,
    /// The error code of the answer.
    pub(crate) code: &'static str,
}

#[derive(Debug, Default)]
struct State {
    kinds: HashMap<RefusalKind, Seen>,
    /// The number of records since a time.
    recorded: Option<(Timestamp, u32)>,
}

#[derive(Debug)]
struct Seen {
    count: u64,
    unrecorded: u32,
    last: Timestamp,
}

impl Refusals {
    /// Counts a call. `Some` is the number of calls that a record must now stand for.
    pub(crate) fn count(&self, kind: RefusalKind, now: Timestamp) -> Option<u32> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { kinds, recorded } = &mut *state;
        let seen = seen(kinds, kind, now);
        seen.count += 1;
        seen.unrecorded = seen.unrecorded.saturating_add(1);
        seen.last = now;
        let is_due = seen.count <= ONE_BY_ONE || is_power_of_ten(seen.count);
        if !is_due || !is_free(recorded, now) {
            return None;
        }
        Some(std::mem::take(&mut seen.unrecorded))
    }
}

fn seen(kinds: &mut HashMap<RefusalKind, Seen>, kind: RefusalKind, now: Timestamp) -> &mut Seen {
    let is_over = |seen: &Seen| now.duration_since(seen.last) >= REMEMBERED;
    if kinds.len() >= KINDS_MAX && !kinds.contains_key(&kind) {
        kinds.retain(|_, seen| !is_over(seen));
        let oldest = kinds.iter().min_by_key(|(_, seen)| seen.last).map(|(kind, _)| kind.clone());
        if let Some(oldest) = oldest.filter(|_| kinds.len() >= KINDS_MAX) {
            kinds.remove(&oldest);
        }
    }
    let seen = kinds.entry(kind).or_insert(Seen { count: 0, unrecorded: 0, last: now });
    if is_over(seen) {
        // Earlier unrecorded calls are included in the next record.
        seen.count = 0;
    }
    seen
}

fn is_power_of_ten(count: u64) -> bool {
    10_u64.checked_pow(count.max(1).ilog10()) == Some(count)
}

/// Takes one record from the budget, if any is left.
fn is_free(recorded: &mut Option<(Timestamp, u32)>, now: Timestamp) -> bool {
    let (since, count) =
        recorded.filter(|(since, _)| now.duration_since(*since) < WINDOW).unwrap_or((now, 0));
    *recorded = Some((since, count.saturating_add(1)));
    count < RECORDS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_760_000_000 + seconds).unwrap()
    }

    fn kind(who: &str) -> RefusalKind {
        RefusalKind { address: None, who: Some(who.to_owned()), code: "APIGW.0301" }
    }

    #[test]
    fn first_refusals_are_recorded_individually_and_later_ones_in_sums() {
        let refusals = Refusals::default();
        let recorded: Vec<_> =
            (0..1000).filter_map(|_| refusals.count(kind("one"), at(0))).collect();
        assert_eq!(recorded, [1, 1, 1, 1, 1, 5, 90, 900]);
        assert_eq!(refusals.count(kind("two"), at(0)), Some(1));
        assert_eq!(refusals.count(kind("one"), at(599)), None);
        assert_eq!(refusals.count(kind("one"), at(1199)), Some(2), "the count starts again");
    }

    #[test]
    fn records_and_memory_are_bounded() {
        let refusals = Refusals::default();
        let send = |from: usize, seconds: i64| {
            let sent = from..from + 2 * KINDS_MAX;
            let counted = sent.filter_map(|n| refusals.count(kind(&n.to_string()), at(seconds)));
            counted.count()
        };
        assert_eq!(send(0, 0), RECORDS_MAX as usize);
        assert_eq!(send(10_000, 59), 0);
        assert_eq!(send(20_000, 60), RECORDS_MAX as usize);
        assert_eq!(refusals.0.lock().unwrap().kinds.len(), KINDS_MAX);
    }
}

//! Which of the calls that were refused are recorded: each of the first of a kind, then fewer and
//! fewer. Anybody can send them, so neither their number nor that of their kinds costs more than a
//! bounded number of records.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

/// How many of a kind are recorded one by one: as many as lock a key or a user.
const ONE_BY_ONE: u64 = 5;
/// A kind that has not come for so long begins anew.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(10);
const KINDS_MAX: usize = 4096;
const RECORDS_MAX: u32 = 60;
const WINDOW: SignedDuration = SignedDuration::from_mins(1);

/// What was refused of late, as far as records need it.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Arc<Mutex<State>>);

/// Calls that are told apart in records.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RefusalKind {
    /// From where.
    pub(crate) address: Option<IpAddr>,
    /// In whose name: a key or a user that there is.
    pub(crate) who: Option<String>,
    /// The code with which they were refused.
    pub(crate) code: &'static str,
}

#[derive(Debug, Default)]
struct State {
    kinds: HashMap<RefusalKind, Seen>,
    /// Records since a moment.
    recorded: Option<(Timestamp, u32)>,
}

#[derive(Debug)]
struct Seen {
    count: u64,
    unrecorded: u32,
    last: Timestamp,
}

impl Refusals {
    /// Counts a call. It is to be recorded where a number comes of it: for how many it stands.
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
        // What was not recorded of before is told with the next.
        seen.count = 0;
    }
    seen
}

fn is_power_of_ten(count: u64) -> bool {
    10_u64.checked_pow(count.max(1).ilog10()) == Some(count)
}

/// Whether one more may be recorded now.
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
    fn the_first_are_recorded_one_by_one_and_then_fewer_and_fewer_with_their_number() {
        let refusals = Refusals::default();
        let recorded: Vec<_> =
            (0..1000).filter_map(|_| refusals.count(kind("one"), at(0))).collect();
        assert_eq!(recorded, [1, 1, 1, 1, 1, 5, 90, 900]);
        assert_eq!(refusals.count(kind("two"), at(0)), Some(1));
        assert_eq!(refusals.count(kind("one"), at(599)), None);
        assert_eq!(refusals.count(kind("one"), at(1199)), Some(2), "it begins anew");
    }

    #[test]
    fn records_and_memory_are_bounded_whatever_is_sent() {
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

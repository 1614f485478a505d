//! Limits on wrong credentials, per key or user and per client address.
//!
//! Credentials are verified first; only wrong ones count. Five consecutive failures from one
//! address lock an access key or user for five minutes, as in the vendor's service. The lock
//! applies only to that address, so a client cannot lock out others. After a hundred failures in a
//! minute from one address, further failures from it are told to wait. Correct credentials from
//! that address are still accepted, but expensive checks are paced. Each address may have sixteen
//! concurrent sign-ins, which bounds the queue for password hashing. All state is in the memory of
//! the process and bounded; a restart clears it.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cachevault_domain::UserId;
use jiff::{SignedDuration, Timestamp};

use crate::client::network;
use crate::concurrency::{Concurrency, Running};

const IN_A_ROW_MAX: u32 = 5;
const LOCKED_FOR: SignedDuration = SignedDuration::from_mins(5);
const OF_ADDRESS_MAX: u32 = 100;
const WINDOW: SignedDuration = SignedDuration::from_mins(1);
/// Maximum of entries per map. The least recently seen entry is evicted.
const ENTRIES_MAX: usize = 4096;

/// Two passwords are hashed at a time, each within tens of milliseconds: the queue lasts less than
/// a second.
const SIGN_INS_MAX: usize = 16;
/// The pause before each password check for an address over its limit. The full queue takes at most
/// ten seconds.
const PACE: Duration = Duration::from_millis(500);

/// The key or user of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Key(String),
    /// A user, independent of naming by id or name.
    User(UserId),
    /// A name without a user. It is locked like a user, so the lock does not reveal which users
    /// exist.
    NoUser(String),
}

/// A request that is refused because of earlier failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Throttled {
    /// The key or user is locked for this address.
    Locked,
    /// The address is over its limit.
    Address { retry_after_seconds: u64 },
}

/// Recent failures, and running sign-ins.
#[derive(Debug)]
pub struct Throttle {
    state: Mutex<State>,
    sign_ins: Concurrency,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { state: Mutex::default(), sign_ins: Concurrency::of(SIGN_INS_MAX) }
    }
}

#[derive(Debug, Default)]
struct State {
    targets: Bounded<(Target, Option<IpAddr>)>,
    addresses: Bounded<IpAddr>,
}

/// Failures since a time.
#[derive(Debug, Clone)]
struct Tries {
    count: u32,
    first: Timestamp,
    last: Timestamp,
    /// The queue of paced checks for an address.
    lane: Arc<tokio::sync::Mutex<()>>,
}

impl Throttle {
    /// Refuses an attempt on a locked target.
    pub(crate) fn check(
        &self,
        target: Option<&Target>,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(), Throttled> {
        let Some(target) = target else { return Ok(()) };
        let of_address = (target.clone(), address.map(network));
        self.state(|state| state.check(&of_address, now))
    }

    /// Acquires a slot for a sign-in from this address; `None` at the limit.
    pub(crate) fn begin_sign_in(&self, address: Option<IpAddr>) -> Option<Running> {
        let network = address.map(network);
        self.sign_ins.begin(network.map(|network| network.to_string()).unwrap_or_default())
    }

    /// Whether this address is over its limit of failures.
    pub(crate) fn is_over(&self, address: Option<IpAddr>, now: Timestamp) -> bool {
        address
            .is_some_and(|address| self.state(|state| state.wait(&network(address), now).is_some()))
    }

    /// Waits for the turn of an expensive check. Addresses below the limit of failures do not wait.
    pub(crate) async fn pace(&self, address: Option<IpAddr>, now: Timestamp) {
        let Some(address) = address.map(network) else { return };
        let lane = self.state(|state| {
            state.wait(&address, now)?;
            state.addresses.0.get(&address).map(|tries| tries.lane.clone())
        });
        if let Some(lane) = lane {
            let _turn = lane.lock().await;
            tokio::time::sleep(PACE).await;
        }
    }

    /// Records the result of an attempt. An attempt on a target that was locked meanwhile is
    /// refused, so parallel attempts gain nothing.
    pub(crate) fn settle(
        &self,
        target: Option<&Target>,
        address: Option<IpAddr>,
        now: Timestamp,
        is_right: bool,
    ) -> Result<(), Throttled> {
        let address = address.map(network);
        let of_address = target.map(|target| (target.clone(), address));
        self.state(|state| {
            if let Some(tried) = &of_address {
                state.check(tried, now)?;
                match is_right {
                    true => state.targets.forget(tried),
                    false => state.targets.count(tried, now, LOCKED_FOR, Since::Last, IN_A_ROW_MAX),
                }
            }
            match address {
                Some(address) if !is_right => state.count_wrong(address, now),
                _ => Ok(()),
            }
        })
    }

    fn state<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // A panic cannot leave the counters inconsistent.
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn check(&self, tried: &(Target, Option<IpAddr>), now: Timestamp) -> Result<(), Throttled> {
        let is_locked = |tries: &Tries| {
            tries.count >= IN_A_ROW_MAX && now.duration_since(tries.last) < LOCKED_FOR
        };
        if self.targets.0.get(tried).is_some_and(is_locked) {
            return Err(Throttled::Locked);
        }
        Ok(())
    }

    /// The remaining wait of an address over its limit.
    fn wait(&self, address: &IpAddr, now: Timestamp) -> Option<SignedDuration> {
        let tries = self.addresses.0.get(address)?;
        let left = WINDOW - now.duration_since(tries.first);
        (tries.count >= OF_ADDRESS_MAX && left.is_positive()).then_some(left)
    }

    fn count_wrong(&mut self, address: IpAddr, now: Timestamp) -> Result<(), Throttled> {
        if let Some(left) = self.wait(&address, now) {
            let retry_after_seconds = left.as_secs().unsigned_abs().max(1);
            return Err(Throttled::Address { retry_after_seconds });
        }
        self.addresses.count(&address, now, WINDOW, Since::First, OF_ADDRESS_MAX);
        Ok(())
    }
}

/// The time from which the expiry of failures is counted.
#[derive(Clone, Copy)]
enum Since {
    First,
    Last,
}

#[derive(Debug)]
struct Bounded<K>(HashMap<K, Tries>);

impl<K> Default for Bounded<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash + Clone> Bounded<K> {
    /// Counts a failure. When the map is full, the oldest entry below its `limit` is evicted.
    fn count(&mut self, key: &K, now: Timestamp, kept: SignedDuration, since: Since, limit: u32) {
        let is_over = |tries: &Tries| {
            let began = match since {
                Since::First => tries.first,
                Since::Last => tries.last,
            };
            now.duration_since(began) >= kept
        };
        if let Some(tries) = self.0.get_mut(key)
            && !is_over(tries)
        {
            tries.count = tries.count.saturating_add(1);
            tries.last = now;
            return;
        }
        if self.0.len() >= ENTRIES_MAX {
            self.0.retain(|_, tries| !is_over(tries));
        }
        if self.0.len() >= ENTRIES_MAX
            && let Some(oldest) = self
                .0
                .iter()
                .min_by_key(|(_, tries)| (tries.count >= limit, tries.last))
                .map(|(key, _)| key.clone())
        {
            self.0.remove(&oldest);
        }
        let tries = Tries { count: 1, first: now, last: now, lane: Arc::default() };
        self.0.insert(key.clone(), tries);
    }

    fn forget(&mut self, key: &K) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_760_000_000 + seconds).unwrap()
    }

    fn key(name: &str) -> Target {
        Target::Key(name.to_owned())
    }

    #[test]
    fn five_consecutive_failures_lock_for_five_minutes() {
        let throttle = Throttle::default();
        let one = key("one");
        let wrong = |n| throttle.settle(Some(&one), None, at(n), false);
        for n in 0..4 {
            wrong(n).unwrap();
        }
        throttle.settle(Some(&one), None, at(4), true).unwrap();
        for n in 10..15 {
            throttle.check(Some(&one), None, at(n)).unwrap();
            wrong(n).unwrap();
        }
        assert_eq!(throttle.check(Some(&one), None, at(14)), Err(Throttled::Locked));
        // Correct attempts are refused too, and no attempt extends the lock.
        assert_eq!(throttle.settle(Some(&one), None, at(313), true), Err(Throttled::Locked));
        assert_eq!(wrong(313), Err(Throttled::Locked));
        assert!(throttle.check(Some(&Target::NoUser("one".into())), None, at(20)).is_ok());
        throttle.check(Some(&one), None, at(314)).unwrap();
        // The count starts again after the lock.
        wrong(314).unwrap();
        throttle.check(Some(&one), None, at(315)).unwrap();
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_lock_applies_only_to_the_failing_address() {
        let throttle = Throttle::default();
        let one = key("one");
        for n in 0..5 {
            throttle.settle(Some(&one), address("10.0.0.1"), at(n), false).unwrap();
        }
        assert_eq!(throttle.check(Some(&one), address("10.0.0.1"), at(5)), Err(Throttled::Locked));
        throttle.settle(Some(&one), address("10.0.0.2"), at(5), true).unwrap();
        let locked = throttle.settle(Some(&one), address("::ffff:10.0.0.1"), at(5), true);
        assert_eq!(locked, Err(Throttled::Locked));
    }

    #[test]
    fn failures_wait_for_the_end_of_the_minute_and_correct_attempts_do_not() {
        let throttle = Throttle::default();
        let here = address("2001:db8:1:2::1");
        for n in 0..OF_ADDRESS_MAX {
            let other = key(&n.to_string());
            throttle.settle(Some(&other), here, at(i64::from(n) / 10), false).unwrap();
        }
        for same in ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9"] {
            let refused = throttle.settle(None, address(same), at(20), false);
            assert_eq!(refused, Err(Throttled::Address { retry_after_seconds: 40 }), "{same}");
            assert!(throttle.is_over(address(same), at(20)));
            throttle.settle(Some(&key("right")), address(same), at(20), true).unwrap();
        }
        for other in ["2001:db8:1:3::1", "10.0.0.1"] {
            assert!(!throttle.is_over(address(other), at(20)), "{other}");
            throttle.settle(None, address(other), at(20), false).unwrap();
        }
        assert!(!throttle.is_over(here, at(60)));
        throttle.settle(None, here, at(60), false).unwrap();
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), address("10.0.0.1").unwrap());
    }

    #[test]
    fn memory_is_bounded_and_recent_entries_are_kept() {
        let throttle = Throttle::default();
        let locked = key("locked");
        for n in 0..ENTRIES_MAX + 10 {
            let _ = throttle.settle(Some(&key(&n.to_string())), None, at(2), false);
            let _ = throttle.settle(Some(&locked), None, at(1), false);
        }
        assert_eq!(throttle.state(|state| state.targets.0.len()), ENTRIES_MAX);
        assert_eq!(throttle.check(Some(&locked), None, at(2)), Err(Throttled::Locked));
    }
}

//! Bounds on wrong credentials: how often one may be tried, and how often an address may try.
//!
//! Five wrong ones in a row lock an access key or a user for five minutes, as the vendor does. An
//! address that has sent a hundred within a minute is told to wait, whatever it sends. Of those who
//! sign in from one address sixteen are answered at a time, so that no more than those wait for a
//! password to be looked at. All of it is kept in memory, of bounded size, by each process for
//! itself: a restart forgets.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::concurrency::{Concurrency, Running};

const IN_A_ROW_MAX: u32 = 5;
const LOCKED_FOR: SignedDuration = SignedDuration::from_mins(5);
const OF_ADDRESS_MAX: u32 = 100;
const WINDOW: SignedDuration = SignedDuration::from_mins(1);
/// Entries of a kind; with more of them the one seen longest ago is forgotten.
const ENTRIES_MAX: usize = 4096;

/// Two passwords are looked at at a time, some tens of milliseconds each: these wait no second.
const SIGN_INS_MAX: usize = 16;

/// What is tried.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Key(String),
    User(String),
}

/// A request that is not looked at, because of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Throttled {
    /// The key or user is locked.
    Locked,
    /// The address has to wait.
    Address { retry_after_seconds: u64 },
}

/// What was tried wrongly of late, and who is signing in.
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
    targets: Bounded<Target>,
    addresses: Bounded<IpAddr>,
}

/// Wrong tries, counted since a moment.
#[derive(Debug, Clone, Copy)]
struct Tries {
    count: u32,
    first: Timestamp,
    last: Timestamp,
}

impl Throttle {
    /// Whether this target may be tried from this address now.
    pub(crate) fn check(
        &self,
        target: Option<&Target>,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(), Throttled> {
        self.state(|state| state.check(target, address.map(network), now))
    }

    /// Somebody who signs in from this address; `None` where too many do.
    pub(crate) fn begin_sign_in(&self, address: Option<IpAddr>) -> Option<Running> {
        let network = address.map(network);
        self.sign_ins.begin(network.map(|network| network.to_string()).unwrap_or_default())
    }

    /// Takes down how a try ended. What was locked while it was looked at is refused all the same,
    /// so that nobody learns more by trying many at once.
    pub(crate) fn settle(
        &self,
        target: Option<&Target>,
        address: Option<IpAddr>,
        now: Timestamp,
        is_right: bool,
    ) -> Result<(), Throttled> {
        let address = address.map(network);
        self.state(|state| {
            state.check(target, address, now)?;
            match target {
                Some(target) if is_right => state.targets.forget(target),
                Some(target) => {
                    state.targets.count(target, now, LOCKED_FOR, Since::Last, IN_A_ROW_MAX)
                }
                None => {}
            }
            if let (false, Some(address)) = (is_right, address) {
                state.addresses.count(&address, now, WINDOW, Since::First, OF_ADDRESS_MAX);
            }
            Ok(())
        })
    }

    fn state<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // Counts that somebody panicked over are still counts.
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn check(
        &self,
        target: Option<&Target>,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(), Throttled> {
        let tries = address.and_then(|address| self.addresses.0.get(&address));
        if let Some(tries) = tries
            && tries.count >= OF_ADDRESS_MAX
            && now.duration_since(tries.first) < WINDOW
        {
            let left = WINDOW - now.duration_since(tries.first);
            let retry_after_seconds = left.as_secs().unsigned_abs().max(1);
            return Err(Throttled::Address { retry_after_seconds });
        }
        let tries = target.and_then(|target| self.targets.0.get(target));
        let is_locked = |tries: &Tries| {
            tries.count >= IN_A_ROW_MAX && now.duration_since(tries.last) < LOCKED_FOR
        };
        if tries.is_some_and(is_locked) { Err(Throttled::Locked) } else { Ok(()) }
    }
}

/// From when on the time is counted after which tries are forgotten.
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
    /// Counts a try. Where there is no room the oldest entry goes that is below its `limit`.
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
        self.0.insert(key.clone(), Tries { count: 1, first: now, last: now });
    }

    fn forget(&mut self, key: &K) {
        self.0.remove(key);
    }
}

/// One household has one IPv4 address, but 2⁶⁴ of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
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
    fn five_wrong_in_a_row_lock_for_five_minutes() {
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
        // Right ones are refused too, and neither they nor wrong ones make it longer.
        assert_eq!(throttle.settle(Some(&one), None, at(313), true), Err(Throttled::Locked));
        assert_eq!(wrong(313), Err(Throttled::Locked));
        assert!(throttle.check(Some(&Target::User("one".into())), None, at(20)).is_ok());
        throttle.check(Some(&one), None, at(314)).unwrap();
        // After the time it begins anew.
        wrong(314).unwrap();
        throttle.check(Some(&one), None, at(315)).unwrap();
    }

    #[test]
    fn an_address_waits_for_the_end_of_its_minute() {
        let throttle = Throttle::default();
        let address = |text: &str| Some(text.parse().unwrap());
        let here = address("2001:db8:1:2::1");
        for n in 0..OF_ADDRESS_MAX {
            let other = key(&n.to_string());
            throttle.settle(Some(&other), here, at(i64::from(n) / 10), false).unwrap();
        }
        for same in ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9"] {
            let refused = throttle.check(None, address(same), at(20));
            assert_eq!(refused, Err(Throttled::Address { retry_after_seconds: 40 }), "{same}");
        }
        for other in ["2001:db8:1:3::1", "10.0.0.1"] {
            assert!(throttle.check(None, address(other), at(20)).is_ok(), "{other}");
        }
        assert!(throttle.check(None, here, at(60)).is_ok());
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), address("10.0.0.1").unwrap());
    }

    #[test]
    fn memory_is_bounded_and_the_latest_are_kept() {
        let throttle = Throttle::default();
        let locked = key("locked");
        for n in 0..ENTRIES_MAX + 10 {
            let _ = throttle.settle(Some(&key(&n.to_string())), None, at(0), false);
            let _ = throttle.settle(Some(&locked), None, at(1), false);
        }
        assert_eq!(throttle.state(|state| state.targets.0.len()), ENTRIES_MAX);
        assert_eq!(throttle.check(Some(&locked), None, at(2)), Err(Throttled::Locked));
    }
}

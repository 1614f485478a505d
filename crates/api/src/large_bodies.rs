//! Slots for large request bodies: a limit on the bodies in memory.
//!
//! A signature covers its body, so the body is read before the sender is known. An unauthenticated
//! sender may therefore lose its slot to another request. The slot is taken from the address with
//! the most slots, and there from the oldest body. Bodies that never arrive block nobody.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::client::network;

const PLACES_MAX: usize = 8;

/// Slots for request bodies of more than 64 KiB: the whole service reads 8 at the same time.
#[derive(Debug, Clone, Default)]
pub struct LargeBodies(Arc<Mutex<Places>>);

/// The sender of a body.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reader {
    /// An authenticated sender.
    Proven,
    /// Any sender at this address.
    Unproven(Option<IpAddr>),
}

#[derive(Debug, Default)]
struct Places {
    taken_ever: u64,
    /// Occupied slots in the order of acquisition.
    held: BTreeMap<u64, Held>,
}

#[derive(Debug)]
struct Held {
    reader: Reader,
    lost: CancellationToken,
}

/// A slot, held until it is dropped or evicted.
#[derive(Debug)]
pub(crate) struct Place {
    bodies: LargeBodies,
    number: u64,
    lost: CancellationToken,
}

impl LargeBodies {
    /// Acquires a slot and evicts another if necessary; `None` when authenticated senders hold all
    /// slots.
    pub(crate) fn take(&self, reader: Reader) -> Option<Place> {
        let reader = match reader {
            Reader::Unproven(address) => Reader::Unproven(address.map(network)),
            Reader::Proven => Reader::Proven,
        };
        let mut places = self.places();
        if places.held.len() >= PLACES_MAX {
            let number = places.dispensable()?;
            places.held.remove(&number)?.lost.cancel();
        }
        let (number, lost) = (places.taken_ever, CancellationToken::new());
        places.taken_ever += 1;
        places.held.insert(number, Held { reader, lost: lost.clone() });
        drop(places);
        Some(Place { bodies: self.clone(), number, lost })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// The oldest slot of the unauthenticated address with the most slots.
    fn dispensable(&self) -> Option<u64> {
        let unproven = || {
            self.held.iter().filter_map(|(number, held)| match held.reader {
                Reader::Unproven(address) => Some((*number, address)),
                Reader::Proven => None,
            })
        };
        let of = |address| unproven().filter(|(_, other)| *other == address).count();
        let (number, _) = unproven()
            .max_by_key(|(number, address)| (of(*address), std::cmp::Reverse(*number)))?;
        Some(number)
    }
}

impl Place {
    /// Completes when another request has taken the slot.
    pub(crate) fn lost(&self) -> WaitForCancellationFuture<'_> {
        self.lost.cancelled()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.bodies.places().held.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unproven(address: &str) -> Reader {
        Reader::Unproven(Some(address.parse().unwrap()))
    }

    #[test]
    fn the_address_with_most_slots_loses_its_oldest_and_authenticated_senders_lose_none() {
        let bodies = LargeBodies::default();
        let take = |reader| bodies.take(reader).unwrap();
        let other = take(unproven("10.0.0.2"));
        let greedy: Vec<_> = (1..PLACES_MAX).map(|_| take(unproven("10.0.0.1"))).collect();
        let proven = take(Reader::Proven);
        let is_lost = |place: &Place| place.lost.is_cancelled();
        assert!(is_lost(&greedy[0]) && greedy[1..].iter().all(|place| !is_lost(place)));
        let later = take(unproven("10.0.0.2"));
        assert!(is_lost(&greedy[1]) && ![&other, &proven, &later].into_iter().any(is_lost));
        drop(greedy);
        let all: Vec<_> = (3..PLACES_MAX).map(|_| take(Reader::Proven)).collect();
        let last = [take(Reader::Proven), take(Reader::Proven)];
        assert!(is_lost(&other) && is_lost(&later));
        for reader in [Reader::Proven, unproven("10.0.0.3")] {
            assert!(bodies.take(reader).is_none(), "{reader:?}");
        }
        drop((all, last, proven));
        assert!(bodies.places().held.is_empty(), "entries of released slots must be removed");
    }
}

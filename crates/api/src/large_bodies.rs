//! Places for large request bodies: how many are taken into memory at a time.
//!
//! A signature covers its body, so that has to be read before anybody knows whose it is. Whoever has
//! not proven who it is therefore holds a place only as long as nobody else wants it: a place is
//! taken from the address that has most of them, there from the body that has been coming longest.
//! Bodies that never come keep nobody out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::client::network;

const PLACES_MAX: usize = 8;

/// Places for request bodies of more than 64 KiB: 8 are read at a time, by the whole service.
#[derive(Debug, Clone, Default)]
pub struct LargeBodies(Arc<Mutex<Places>>);

/// Who sends a body.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reader {
    /// Somebody that has proven who it is.
    Proven,
    /// Anybody at this address.
    Unproven(Option<IpAddr>),
}

#[derive(Debug, Default)]
struct Places {
    taken_ever: u64,
    /// In the order in which they were taken.
    held: BTreeMap<u64, Held>,
}

#[derive(Debug)]
struct Held {
    reader: Reader,
    lost: CancellationToken,
}

/// A place, until it is dropped or lost.
#[derive(Debug)]
pub(crate) struct Place {
    bodies: LargeBodies,
    number: u64,
    lost: CancellationToken,
}

impl LargeBodies {
    /// A place, which somebody else may lose; `None` where all are held by those that are proven.
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
    /// The oldest place of the unproven address that has most.
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
    /// Ends when somebody else got the place.
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
    fn the_address_with_most_places_loses_its_oldest_and_who_is_proven_loses_none() {
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
        assert!(bodies.places().held.is_empty(), "nothing is kept of what is over");
    }
}

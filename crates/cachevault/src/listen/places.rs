//! How many connections there may be, in all and from one address.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Extension;
use axum::middleware::AddExtension;
use axum_server::accept::Accept;
use cachevault_api::{TrustedProxies, network};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Layer;

use super::ConnectionLimits;

/// Lets in as many connections as there are places, and of one address no more than it may have. A
/// connection keeps its place in the service that answers it, which ends with it.
#[derive(Debug, Clone)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    /// Whether the last connection found no place: the log tells of the first alone.
    is_full: Arc<AtomicBool>,
    of_addresses: OfAddresses,
    of_address_max: usize,
    proxies: Arc<TrustedProxies>,
    stall_ms: u32,
}

/// What a connection holds as long as it is open.
#[derive(Debug)]
pub(super) struct Held {
    _place: OwnedSemaphorePermit,
    _of_address: Option<OfAddress>,
}

pub(super) type Place = Arc<Held>;

impl Places {
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        Self {
            free: Arc::new(Semaphore::new(limits.connections_max)),
            is_full: Arc::default(),
            of_addresses: OfAddresses::default(),
            of_address_max: limits.of_address_max,
            proxies: limits.proxies,
            stall_ms: u32::try_from(limits.stall.as_millis()).unwrap_or(u32::MAX),
        }
    }

    fn take(&self, address: IpAddr) -> Option<Place> {
        // An address that has too many takes no place from others, not even for a moment.
        let of_address = match self.proxies.contain(address) {
            true => None,
            false => Some(self.of_addresses.take(network(address), self.of_address_max)?),
        };
        let Ok(place) = self.free.clone().try_acquire_owned() else {
            if !self.is_full.swap(true, Ordering::Relaxed) {
                tracing::warn!("connections are closed at once: too many are open");
            }
            return None;
        };
        self.is_full.store(false, Ordering::Relaxed);
        Some(Arc::new(Held { _place: place, _of_address: of_address }))
    }
}

impl<S> Accept<TcpStream, S> for Places {
    type Stream = TcpStream;
    type Service = AddExtension<S, Place>;
    type Future = std::future::Ready<io::Result<(TcpStream, Self::Service)>>;

    fn accept(&self, connection: TcpStream, service: S) -> Self::Future {
        // Answers are small, and awaited.
        let _ = connection.set_nodelay(true);
        // Where the system does not know it, a stalled client costs a connection, and no more.
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&connection, self.stall_ms);
        let taken = connection.peer_addr().map(|peer| self.take(peer.ip()));
        std::future::ready(taken.and_then(|place| {
            let place = place.ok_or(io::ErrorKind::ConnectionRefused)?;
            Ok((connection, Extension(place).layer(service)))
        }))
    }
}

/// The connections that are open, by address.
#[derive(Debug, Clone, Default)]
struct OfAddresses(Arc<Mutex<HashMap<IpAddr, Open>>>);

#[derive(Debug, Default)]
struct Open {
    count: usize,
    /// Whether the log has told that there were too many, since there was none.
    is_told: bool,
}

/// One connection of an address, until it is dropped.
#[derive(Debug)]
struct OfAddress {
    address: IpAddr,
    all: OfAddresses,
}

impl OfAddresses {
    fn take(&self, address: IpAddr, max: usize) -> Option<OfAddress> {
        let mut all = self.open();
        let open = all.entry(address).or_default();
        if open.count >= max {
            if !open.is_told {
                open.is_told = true;
                tracing::warn!(%address, max, "connections are closed at once: too many of one address");
            }
            return None;
        }
        open.count += 1;
        Some(OfAddress { address, all: self.clone() })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let mut all = self.all.open();
        if let Some(open) = all.get_mut(&self.address) {
            open.count -= 1;
            if open.count == 0 {
                all.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_address_takes_no_more_than_its_part_and_a_proxy_all() {
        let proxies = TrustedProxies {
            networks: vec!["10.0.0.9".parse().unwrap()],
            ..TrustedProxies::default()
        };
        let places = Places::new(ConnectionLimits {
            connections_max: 6,
            of_address_max: 2,
            proxies: Arc::new(proxies),
            stall: Duration::from_secs(1),
        });
        let take = |address: &str| places.take(address.parse().unwrap());
        let mut greedy: Vec<_> = (0..4).filter_map(|_| take("2001:db8::1")).collect();
        assert_eq!(greedy.len(), 2);
        assert!(take("2001:db8::2").is_none(), "it is of the same network");
        greedy.pop();
        greedy.extend(take("2001:db8::2"));
        assert_eq!(greedy.len(), 2);
        let proxied: Vec<_> = (0..9).filter_map(|_| take("10.0.0.9")).collect();
        assert_eq!(proxied.len(), 4);
        assert!(take("10.0.0.1").is_none(), "no place is left at all");
        drop((greedy, proxied));
        assert!(places.of_addresses.open().is_empty(), "nothing is kept of what is over");
    }
}

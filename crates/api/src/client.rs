//! The client address of a request: the peer of the connection, or the address that a trusted proxy
//! reports.
//!
//! Any client can send a proxy header. The header is therefore used only on connections from a
//! listed proxy. It is read from the right, up to the first address that is not a listed proxy.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Extensions, HeaderMap, HeaderName, header};
use axum::middleware::Next;
use axum::response::Response;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies that report client addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// The addresses of the proxies.
    pub networks: Vec<Network>,
    /// The header that the proxies write. Clients can forge any other header through them.
    pub header: ProxyHeader,
}

/// The header in which a proxy reports its client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// An address, or all addresses with a common prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Failure to parse a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an address such as 10.0.0.7, or a network such as 10.0.0.0/24 or fd00::/8")]
pub struct NoNetwork;

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(|_| NoNetwork)?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(bits_max), str::parse).map_err(|_| NoNetwork)?;
        if bits > bits_max { Err(NoNetwork) } else { Ok(Self { address, bits }) }
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        let differ = match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                u128::from(own.to_bits() ^ other.to_bits()) << 96
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => own.to_bits() ^ other.to_bits(),
            _ => return false,
        };
        u32::from(self.bits) <= differ.leading_zeros()
    }
}

impl TrustedProxies {
    /// Whether the address belongs to a proxy.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }

    /// The client that the proxy at `peer` reports, or the proxy itself where the header is
    /// unusable.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let name = match self.header {
            ProxyHeader::XForwardedFor => X_FORWARDED_FOR,
            ProxyHeader::Forwarded => header::FORWARDED,
        };
        let mut client = peer;
        for value in headers.get_all(name).iter().rev() {
            let Ok(value) = value.to_str() else { return client };
            for hop in value.rsplit(',') {
                let Some(address) = self.header.address(hop) else { return client };
                client = address;
                if !self.contain(client) {
                    return client;
                }
            }
        }
        client
    }
}

impl ProxyHeader {
    /// The address in one element of the header.
    fn address(self, hop: &str) -> Option<IpAddr> {
        let text = match self {
            Self::XForwardedFor => hop,
            Self::Forwarded => hop.split(';').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
            })?,
        };
        let text = text.trim();
        let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
        let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
        let address = text.parse().ok().or_else(with_port).or_else(in_brackets);
        address.map(|address: IpAddr| address.to_canonical())
    }
}

/// Replaces the connection's address with the client's.
pub(crate) async fn resolve(
    State(proxies): State<Arc<TrustedProxies>>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    if let Some(peer) = peer.map(|ConnectInfo(address)| address.ip())
        && proxies.contain(peer)
    {
        let client = proxies.client(peer, request.headers());
        // The client's port is unknown.
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(client, 0)));
    }
    next.run(request).await
}

/// The client address of a request, where it is known.
pub(crate) fn client_address(extensions: &Extensions) -> Option<IpAddr> {
    let address = extensions.get::<ConnectInfo<SocketAddr>>();
    address.map(|ConnectInfo(address)| address.ip().to_canonical())
}

/// The network that counts as one client: one IPv4 address, or one /64 network of IPv6.
pub fn network(address: IpAddr) -> IpAddr {
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

    fn trusted(header: ProxyHeader) -> TrustedProxies {
        let networks = ["10.0.0.0/24", "fd00::7"].map(|text| text.parse().unwrap());
        TrustedProxies { networks: networks.to_vec(), header }
    }

    fn client(proxies: &TrustedProxies, name: &'static str, values: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, value.parse().unwrap());
        }
        proxies.client("10.0.0.7".parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_last_address_that_is_not_a_proxy_is_the_client() {
        let proxies = trusted(ProxyHeader::XForwardedFor);
        for (values, found) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&["127.0.0.1, 192.0.2.1"], "192.0.2.1"),
            (&["127.0.0.1", "192.0.2.1 , 10.0.0.9"], "192.0.2.1"),
            (&["192.0.2.1, fd00::7", "[fd00::7]:80,10.0.0.9:4711"], "192.0.2.1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["[2001:db8::1]:4711"], "2001:db8::1"),
            (&["::ffff:192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.1, unknown, 10.0.0.9"], "10.0.0.9"),
            (&["192.0.2.1,"], "10.0.0.7"),
            (&["10.0.0.8"], "10.0.0.8"),
            (&[], "10.0.0.7"),
        ] {
            assert_eq!(client(&proxies, "x-forwarded-for", values), found, "{values:?}");
            assert_eq!(client(&proxies, "forwarded", values), "10.0.0.7");
        }
    }

    #[test]
    fn only_the_configured_proxy_header_is_read() {
        let proxies = trusted(ProxyHeader::Forwarded);
        for (value, found) in [
            ("for=127.0.0.1, for=192.0.2.1;proto=http;by=203.0.113.43", "192.0.2.1"),
            ("proto=http; For=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=192.0.2.1, for=\"10.0.0.9:80\"", "192.0.2.1"),
            ("for=192.0.2.1, for=_hidden", "10.0.0.7"),
            ("for=192.0.2.1, proto=http", "10.0.0.7"),
        ] {
            assert_eq!(client(&proxies, "forwarded", &[value]), found, "{value}");
        }
        assert_eq!(client(&proxies, "x-forwarded-for", &["192.0.2.1"]), "10.0.0.7");
    }

    #[test]
    fn networks_contain_addresses_with_their_prefix() {
        for (network, address, is_in) in [
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.7", "::ffff:10.0.0.7", true),
            ("10.0.0.7", "10.0.0.6", false),
            ("10.0.0.0/24", "10.0.0.255", true),
            ("10.0.0.0/24", "10.0.1.0", false),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe00::1", false),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), is_in, "{network:?} {address}");
        }
        for text in ["", "10.0.0", "10.0.0.0/33", "fd00::/129", "10.0.0.0/", "proxy.example", "/8"]
        {
            assert_eq!(text.parse::<Network>(), Err(NoNetwork), "{text}");
        }
    }
}

//! To which addresses the service connects because somebody named them.
//!
//! Rules are about addresses and never about names: a name leads where its owner wants, and elsewhere
//! the next time. So they are asked for each address that is about to be connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

/// The text is no rule of hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no address, no network such as 10.0.0.0/8 and not `*`, with or without a `!` before it"
)]
pub struct InvalidHostRule(String);

/// One entry of a list: a network, and whether connections may go there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostRule {
    allows: bool,
    network: Network,
}

impl FromStr for HostRule {
    type Err = InvalidHostRule;

    /// `*`, an address or a network; with a `!` before it, nothing may go there.
    fn from_str(text: &str) -> Result<Self, InvalidHostRule> {
        let (allows, network) = match text.strip_prefix('!') {
            Some(rest) => (false, rest),
            None => (true, text),
        };
        let network = Network::parse(network).ok_or_else(|| InvalidHostRule(text.to_owned()))?;
        Ok(Self { allows, network })
    }
}

/// To which addresses connections may go. By default to none of this machine, of its link, or at which
/// clouds tell machines their secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostRules {
    /// The first that is about an address decides.
    rules: Arc<[HostRule]>,
    /// Whether, where none is, connections may go everywhere.
    local: bool,
}

impl HostRules {
    /// These rules, and where none of them is about an address those of the default.
    pub fn new(rules: &[HostRule]) -> Self {
        Self { rules: rules.into(), local: false }
    }

    /// Connections may go everywhere.
    pub fn anywhere() -> Self {
        Self::default().with_local(true)
    }

    /// The same rules; where none of them is about an address, connections may go everywhere or not.
    #[must_use]
    pub fn with_local(&self, local: bool) -> Self {
        Self { local, ..self.clone() }
    }

    /// Whether a connection may go to this address.
    pub fn allow(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let embedded = embedded(address);
        let decides = |rule: &&HostRule| match rule.allows {
            // What leads to a network that is denied is denied, however it is written.
            false => {
                rule.network.holds(address) || embedded.iter().any(|v4| rule.network.holds(*v4))
            }
            // To allow a way is not to allow all that it may lead to.
            true => {
                let leads_well = |v4: &IpAddr| rule.network.holds(*v4) || is_public_enough(*v4);
                rule.network.holds(address) && embedded.iter().all(leads_well)
            }
        };
        match self.rules.iter().find(decides) {
            Some(rule) => rule.allows,
            None => {
                self.local
                    || (is_public_enough(address) && embedded.into_iter().all(is_public_enough))
            }
        }
    }
}

/// Addresses that share their first bits, or all of both kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    All,
    V4 { address: Ipv4Addr, prefix: u32 },
    V6 { address: Ipv6Addr, prefix: u32 },
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u32 = match prefix {
            None => longest,
            // Without a sign.
            Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok()?,
            Some(_) => return None,
        };
        match address {
            _ if prefix > longest => None,
            IpAddr::V4(address) => Some(Self::V4 { address, prefix }),
            // Addresses of this form are compared as those of IPv4 that they are.
            IpAddr::V6(address) => match address.to_ipv4_mapped() {
                Some(v4) => Some(Self::V4 { address: v4, prefix: prefix.checked_sub(96)? }),
                None => Some(Self::V6 { address, prefix }),
            },
        }
    }

    fn holds(&self, address: IpAddr) -> bool {
        // A shift by all bits is none.
        match (self, address) {
            (Self::All, _) => true,
            (Self::V4 { address: network, prefix }, IpAddr::V4(v4)) => {
                let differs = network.to_bits() ^ v4.to_bits();
                differs.checked_shr(32 - prefix).unwrap_or(0) == 0
            }
            (Self::V6 { address: network, prefix }, IpAddr::V6(v6)) => {
                let differs = network.to_bits() ^ v6.to_bits();
                differs.checked_shr(128 - prefix).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// The addresses of IPv4 to which one of IPv6 leads, where something on its way translates or unpacks
/// it: an attacker may choose among all of these forms.
fn embedded(address: IpAddr) -> Vec<IpAddr> {
    let IpAddr::V6(v6) = address else { return Vec::new() };
    let segments = v6.segments();
    let v4 = |high: u16, low: u16| {
        IpAddr::from(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
    };
    let [.., high, low] = segments;
    match segments {
        // IPv4-compatible (RFC 4291); `::` and `::1` are none.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Vec::new(),
        [0, 0, 0, 0, 0, 0, ..] => vec![v4(high, low)],
        // IPv4-translated (RFC 2765).
        [0, 0, 0, 0, 0xffff, 0, ..] => vec![v4(high, low)],
        // NAT64 (RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => vec![v4(high, low)],
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => vec![v4(high, low)],
        // Teredo (RFC 4380): the server, and the client with all bits turned.
        [0x2001, 0, high, low, _, _, client_high, client_low] => {
            vec![v4(high, low), v4(!client_high, !client_low)]
        }
        // ISATAP (RFC 5214), within any network.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => vec![v4(high, low)],
        _ => Vec::new(),
    }
}

/// Whether an address is neither of this machine, nor of its link, nor one at which clouds tell
/// machines their secrets.
fn is_public_enough(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            /// Those of Alibaba, Azure and Oracle; the others' is link-local.
            const METADATA: [Ipv4Addr; 3] = [
                Ipv4Addr::new(100, 100, 100, 200),
                Ipv4Addr::new(168, 63, 129, 16),
                Ipv4Addr::new(192, 0, 0, 192),
            ];
            let is_this_network = v4.octets()[0] == 0;
            !(is_this_network
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || METADATA.contains(&v4))
        }
        IpAddr::V6(v6) => {
            /// Those of Amazon, Google and Scaleway.
            const METADATA: [Ipv6Addr; 3] = [
                Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
                Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
                Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
            ];
            // NAT64 of somebody's own (RFC 8215) leads to what only they know.
            let is_own_nat64 = matches!(v6.segments(), [0x64, 0xff9b, 1, ..]);
            !(v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || is_own_nat64
                || METADATA.contains(&v6))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(list: &str) -> HostRules {
        let rules: Vec<HostRule> = list
            .split(',')
            .filter(|rule| !rule.is_empty())
            .map(|rule| rule.parse().unwrap())
            .collect();
        HostRules::new(&rules)
    }

    fn allows(rules: &HostRules, text: &str) -> bool {
        rules.allow(text.parse().unwrap())
    }

    /// Every form in which an address of IPv4 can be written.
    fn forms(v4: &str) -> Vec<String> {
        let [a, b, c, d] = v4.parse::<Ipv4Addr>().unwrap().octets();
        let hex = format!("{a:02x}{b:02x}:{c:02x}{d:02x}");
        let turned = format!("{:02x}{:02x}:{:02x}{:02x}", !a, !b, !c, !d);
        vec![
            v4.to_owned(),
            format!("::ffff:{v4}"),
            format!("::{v4}"),
            format!("::ffff:0:{v4}"),
            format!("64:ff9b::{v4}"),
            format!("2002:{hex}::1"),
            format!("2001:0:cb00:7101::{turned}"),
            format!("2001:0:{hex}::{turned}"),
            format!("2001:db8::5efe:{v4}"),
            format!("2001:db8::200:5efe:{v4}"),
        ]
    }

    #[test]
    fn nothing_goes_to_this_machine_its_link_or_where_clouds_tell_secrets() {
        let strict = HostRules::default();
        for text in ["10.0.0.7", "192.168.1.1", "203.0.113.9", "2001:db8::1", "fd12::1"] {
            assert!(allows(&strict, text), "{text}");
        }
        for v4 in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
        ] {
            for text in forms(v4) {
                assert!(!allows(&strict, &text), "{text}");
                assert!(allows(&HostRules::anywhere(), &text), "{text}");
            }
        }
        for text in [
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fe80::5efe:10.0.0.1",
            "64:ff9b:1::a00:7",
        ] {
            assert!(!allows(&strict, text), "{text}");
        }
        for text in forms("10.0.0.7") {
            assert!(allows(&strict, &text), "{text}");
        }
    }

    #[test]
    fn the_first_rule_that_is_about_an_address_decides() {
        let inner = rules("10.1.0.0/16,127.0.0.1,!*");
        for (text, expected) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("10.2.0.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(allows(&inner, text), expected, "{text}");
        }
        let without = rules("!10.0.0.0/8,!2001:db8::/32").with_local(true);
        for text in forms("10.0.0.7") {
            assert!(!allows(&without, &text), "{text}");
        }
        assert!(!allows(&without, "2001:db8::1") && allows(&without, "127.0.0.1"));
        let exception = rules("10.0.0.7,!10.0.0.0/8");
        assert!(allows(&exception, "10.0.0.7") && !allows(&exception, "10.0.0.8"));
    }

    #[test]
    fn allowing_a_way_does_not_allow_all_that_it_leads_to() {
        let nat64 = rules("64:ff9b::/96");
        assert!(allows(&nat64, "64:ff9b::10.0.0.7"));
        assert!(
            !allows(&nat64, "64:ff9b::127.0.0.1") && !allows(&nat64, "64:ff9b::169.254.169.254")
        );
        assert!(allows(&rules("*"), "64:ff9b::127.0.0.1"));
    }

    #[test]
    fn only_networks_are_rules() {
        for good in ["*", "!*", "10.0.0.1", "!10.0.0.0/8", "::/0", "fd00::/8", "0.0.0.0/0"] {
            assert!(good.parse::<HostRule>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "!",
            "!!*",
            "db",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "::/129",
            "10.0.0.0/",
            "1.2.3",
        ] {
            assert!(bad.parse::<HostRule>().is_err(), "{bad}");
        }
        // All of one kind is not all.
        let (v4, v6) = (rules("0.0.0.0/0"), rules("::/0"));
        assert!(allows(&v4, "127.0.0.1") && !allows(&v4, "::1"));
        assert!(!allows(&v6, "127.0.0.1") && allows(&v6, "::1"));
        let mapped = rules("!::ffff:10.0.0.0/104");
        assert!(!allows(&mapped, "10.1.1.1") && allows(&mapped, "11.1.1.1"));
    }
}

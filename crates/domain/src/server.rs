//! A Redis or Valkey server as we reach it, and what can be wrong with reaching it.

use std::fmt;
use std::str::FromStr;

use secrecy::SecretString;

use crate::HostRules;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// Host name or IP address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Who we say we are to a server.
#[derive(Debug, Clone)]
pub struct Login {
    /// The ACL user; `None` means the server's default user.
    pub username: Option<String>,
    /// The user's password.
    pub password: SecretString,
}

/// A certificate and its key, which we present to whom we connect or who connects to us.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Certificate chain, PEM.
    pub certificate_pem: String,
    /// Private key, PEM.
    pub key_pem: SecretString,
}

/// How to speak TLS to a server.
#[derive(Debug, Clone, Default)]
pub struct TlsSettings {
    /// Certificates to trust, PEM; `None` means those of the operating system.
    pub ca_pem: Option<String>,
    /// What we present when the server wants to know its client.
    pub identity: Option<Identity>,
}

/// Everything needed to open a connection to a server.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where it listens.
    pub address: Address,
    /// Who we are; `None` where the server wants no password.
    pub login: Option<Login>,
    /// `None` means plain TCP.
    pub tls: Option<TlsSettings>,
    /// To which addresses its name, and those of its replicas, may lead.
    pub hosts: HostRules,
    /// Whether errors repeat what it says.
    pub words: ServerWords,
}

impl Target {
    /// A server of our own, or of whoever runs the service: plain, without a password, anywhere.
    pub fn trusted(address: Address) -> Self {
        let (hosts, words) = (HostRules::anywhere(), ServerWords::Shown);
        Self { address, login: None, tls: None, hosts, words }
    }
}

/// Whether errors repeat what a server has said. It need be no Redis, and what it says may be nothing
/// for those who made us ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerWords {
    /// It stays in the log of the service.
    #[default]
    Hidden,
    /// They do.
    Shown,
}

/// Which of the two families a server belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// Redis.
    Redis,
    /// Valkey.
    Valkey,
}

impl EngineKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Redis, Self::Valkey];

    /// The engine's name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Valkey => "valkey",
        }
    }

    /// The oldest version whose replication we speak.
    pub fn oldest_supported(self) -> ServerVersion {
        match self {
            Self::Redis => ServerVersion { major: 5, minor: 0, patch: 0 },
            Self::Valkey => ServerVersion { major: 7, minor: 2, patch: 0 },
        }
    }
}

/// The text is not a version of the form `major.minor.patch`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a version of the form major.minor.patch")]
pub struct InvalidVersion;

/// A server's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerVersion {
    /// First number.
    pub major: u16,
    /// Second number.
    pub minor: u16,
    /// Third number.
    pub patch: u16,
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for ServerVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let mut numbers = text.splitn(3, '.').map(|n| n.parse::<u16>().map_err(|_| InvalidVersion));
        let mut next = || numbers.next().unwrap_or(Err(InvalidVersion));
        Ok(Self { major: next()?, minor: next()?, patch: next()? })
    }
}

/// A server's place in replication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Accepts writes.
    Primary,
    /// Follows a primary.
    Replica,
}

impl Role {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Primary, Self::Replica];

    /// The role's name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// Why a server cannot be adopted or reached. Each says what is wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The host name does not resolve.
    #[error(
        "the host name of `{address}` does not resolve ({detail}); check the name and the resolver of this machine"
    )]
    UnknownHost {
        /// The address tried.
        address: Address,
        /// The resolver's words.
        detail: String,
    },
    /// Connections may not go there.
    #[error(
        "connections to `{address}` are not allowed in this project; whoever runs the service may allow them \
         by `instance_hosts`"
    )]
    NotAllowed {
        /// The address as it was given; where it leads is not told.
        address: Address,
    },
    /// Nothing accepts connections there.
    #[error(
        "`{address}` refused the connection; check that the server runs, its `bind` and its port"
    )]
    Refused {
        /// The address tried.
        address: Address,
    },
    /// No connection came about for another reason.
    #[error("`{address}` cannot be reached: {detail}")]
    Unreachable {
        /// The address tried.
        address: Address,
        /// The operating system's words.
        detail: String,
    },
    /// The server did not answer in time.
    #[error(
        "`{address}` did not answer within {seconds} s; check firewalls, and whether the server is blocked"
    )]
    TimedOut {
        /// The address tried.
        address: Address,
        /// How long we waited.
        seconds: u64,
    },
    /// The TLS handshake failed.
    #[error(
        "TLS with `{address}` failed: {detail}; check `rediss://`, the CA file and the client certificate"
    )]
    Tls {
        /// The address tried.
        address: Address,
        /// What the TLS library said.
        detail: String,
    },
    /// It answers, but not as a Redis or Valkey server.
    #[error(
        "`{address}` does not speak the Redis protocol: {detail}; if it is a TLS port use `rediss://`"
    )]
    NotRedis {
        /// The address tried.
        address: Address,
        /// What came instead.
        detail: String,
    },
    /// It wants a password and got none.
    #[error("`{address}` requires a password; give one: redis://[user]:password@host:port")]
    PasswordRequired {
        /// The address tried.
        address: Address,
    },
    /// The user or password is wrong.
    #[error("`{address}` refused the user name or password: {detail}")]
    WrongPassword {
        /// The address tried.
        address: Address,
        /// The server's words.
        detail: String,
    },
    /// The user may not run a command that we need.
    #[error(
        "`{address}` denies the command `{command}` to this user ({detail}); {}",
        unknown_command_cure(detail)
            .unwrap_or("grant it: ACL SETUSER <name> +psync +replconf +ping +info")
    )]
    Denied {
        /// The address tried.
        address: Address,
        /// The command.
        command: &'static str,
        /// The server's words.
        detail: String,
    },
    /// The version is older than any that we support.
    #[error("`{address}` runs {} {version}; the oldest supported version is {}", engine.as_str(), engine.oldest_supported())]
    UnsupportedVersion {
        /// The address tried.
        address: Address,
        /// The server's engine.
        engine: EngineKind,
        /// The server's version.
        version: ServerVersion,
    },
    /// It is a node of a cluster.
    #[error("`{address}` is a cluster node; clusters cannot be adopted yet")]
    Cluster {
        /// The address tried.
        address: Address,
    },
    /// It is a Sentinel.
    #[error("`{address}` is a Sentinel, which holds no data; give the address of the primary")]
    Sentinel {
        /// The address tried.
        address: Address,
    },
}

/// What to do where a server knows no command of a name; `None` where its words say something else. No right helps
/// there.
pub(crate) fn unknown_command_cure(detail: &str) -> Option<&'static str> {
    detail.contains("unknown command").then_some(
        "the server knows no command of this name: its version has none, its provider took it away, or \
         `rename-command` in its configuration did; there it can be given back",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number_not_by_text() {
        let version = |text: &str| text.parse::<ServerVersion>().unwrap();
        assert!(version("7.10.0") > version("7.9.9"));
        assert_eq!(version("9.1.2").to_string(), "9.1.2");
        for text in ["", "7", "7.0", "7.0.x", "7.0.15.1", "99999999.0.0"] {
            assert_eq!(text.parse::<ServerVersion>(), Err(InvalidVersion), "{text}");
        }
    }

    #[test]
    fn an_ipv6_address_is_bracketed() {
        let address = Address { host: "::1".into(), port: 6379 };
        assert_eq!(address.to_string(), "[::1]:6379");
    }

    #[test]
    fn every_probe_error_says_where_and_what_to_do() {
        let address = Address { host: "db".into(), port: 6379 };
        let error = ProbeError::Denied { address, command: "psync", detail: "NOPERM".into() };
        let text = error.to_string();
        assert!(
            text.contains("db:6379")
                && text.contains("`psync`")
                && text.contains("+psync +replconf")
        );
        let detail = "ERR unknown command 'psync'".to_owned();
        let address = Address { host: "db".into(), port: 6379 };
        let text = ProbeError::Denied { address, command: "psync", detail }.to_string();
        assert!(text.contains("rename-command") && !text.contains("SETUSER"), "{text}");
    }
}

//! How a server is reached, as people say it: what may be said, and how it is changed.

use secrecy::{ExposeSecret, SecretString};

use crate::{
    Address, HostRules, Identity, Login, Observation, SealedConnection, ServerWords, Target,
    TlsSettings,
};

/// The longest host name, bytes (RFC 1035).
const HOST_BYTES_MAX: usize = 253;
const PEM_BYTES_MAX: usize = 256 << 10;
const LOGIN_BYTES_MAX: usize = 1024;

/// What was said of a connection does not go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConnection {
    /// Give a host and a port.
    #[error("`host` must be a host name or address, `port` 1 to 65535")]
    Address,
    /// Shorten them.
    #[error("`username` and `password` must not exceed {LOGIN_BYTES_MAX} bytes")]
    LoginTooLong,
    /// They would be lines of their own for what reads lines, such as a server of mail.
    #[error("`username` and `password` must not hold line breaks or other control characters")]
    LoginControls,
    /// Leave out what is not needed.
    #[error("a PEM text must not exceed 256 KiB")]
    PemTooLong,
    /// Give both.
    #[error("a client certificate needs its key, and a key its certificate")]
    HalfIdentity,
    /// Set `tls`, or leave them out.
    #[error("certificates are given, but `tls` is not set")]
    CertificatesWithoutTls,
    /// Whoever may change an instance does not have to know its password, and shall not learn it.
    #[error(
        "give the password again: a stored one is sent neither to another address nor without TLS"
    )]
    PasswordNeeded,
}

/// How to reach a server, as it is said, with its secrets in clear.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// ACL user; without a password one that needs none (`nopass`).
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<SecretString>,
    /// Whether to speak TLS.
    pub tls: bool,
    /// Certificates to trust instead of the operating system's, PEM.
    pub tls_ca_pem: Option<String>,
    /// The certificate chain to present, PEM.
    pub tls_certificate_pem: Option<String>,
    /// Its key, PEM.
    pub tls_key_pem: Option<SecretString>,
}

/// What to change of how a server is reached. What is `None` stays; an empty text takes away.
#[derive(Debug, Clone, Default)]
pub struct ConnectionChange {
    /// Host name or address.
    pub host: Option<String>,
    /// TCP port.
    pub port: Option<u16>,
    /// ACL user.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<SecretString>,
    /// Whether to speak TLS; without it no certificate stays.
    pub tls: Option<bool>,
    /// Certificates to trust instead of the operating system's, PEM.
    pub tls_ca_pem: Option<String>,
    /// The certificate chain to present, PEM; together with its key.
    pub tls_certificate_pem: Option<String>,
    /// Its key, PEM.
    pub tls_key_pem: Option<SecretString>,
}

/// A connection in place of the one that was read before it was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewConnection {
    /// What is to be replaced: a change that came meanwhile is not undone by this one.
    pub expected: SealedConnection,
    /// What takes its place.
    pub connection: SealedConnection,
    /// What the server said of itself when it was reached so.
    pub observation: Observation,
}

impl Connection {
    /// How to reach the server, as far as the default rules let anybody.
    ///
    /// # Errors
    /// What does not go together.
    pub fn target(self) -> Result<Target, InvalidConnection> {
        let is_name = |c: char| !c.is_control() && !c.is_whitespace();
        let fits = (1..=HOST_BYTES_MAX).contains(&self.host.len());
        if !fits || !self.host.chars().all(is_name) || self.port == 0 {
            return Err(InvalidConnection::Address);
        }
        let (user, password) = (text(self.username.as_ref()), secret(self.password.as_ref()));
        if user.len().max(password.len()) > LOGIN_BYTES_MAX {
            return Err(InvalidConnection::LoginTooLong);
        }
        if user.chars().chain(password.chars()).any(char::is_control) {
            return Err(InvalidConnection::LoginControls);
        }
        let pem_bytes = text(self.tls_ca_pem.as_ref())
            .len()
            .max(text(self.tls_certificate_pem.as_ref()).len())
            .max(secret(self.tls_key_pem.as_ref()).len());
        if pem_bytes > PEM_BYTES_MAX {
            return Err(InvalidConnection::PemTooLong);
        }
        let identity = match (self.tls_certificate_pem, self.tls_key_pem) {
            (Some(certificate_pem), Some(key_pem)) => Some(Identity { certificate_pem, key_pem }),
            (None, None) => None,
            _ => return Err(InvalidConnection::HalfIdentity),
        };
        if !self.tls && (self.tls_ca_pem.is_some() || identity.is_some()) {
            return Err(InvalidConnection::CertificatesWithoutTls);
        }
        let login = match (self.username, self.password) {
            (username, Some(password)) => Some(Login { username, password }),
            (None, None) => None,
            // A user of the ACL that has no password takes any.
            (Some(username), None) => {
                Some(Login { username: Some(username), password: String::new().into() })
            }
        };
        Ok(Target {
            address: Address { host: self.host, port: self.port },
            login,
            tls: self.tls.then_some(TlsSettings { ca_pem: self.tls_ca_pem, identity }),
            hosts: HostRules::default(),
            words: ServerWords::default(),
        })
    }

    /// The same with a change. Whoever makes it need not know the stored password.
    ///
    /// # Errors
    /// [`InvalidConnection::PasswordNeeded`] where the stored password would be sent to who has not
    /// had it; [`InvalidConnection::HalfIdentity`].
    pub fn changed(self, change: ConnectionChange) -> Result<Self, InvalidConnection> {
        let is_elsewhere = change.host.as_ref().is_some_and(|host| *host != self.host)
            || change.port.is_some_and(|port| port != self.port);
        let loses_tls = self.tls && change.tls == Some(false);
        let had_password = !secret(self.password.as_ref()).is_empty();
        if had_password && change.password.is_none() && (is_elsewhere || loses_tls) {
            return Err(InvalidConnection::PasswordNeeded);
        }
        // A new certificate beside the old key would be the one of nobody.
        if change.tls_certificate_pem.is_some() != change.tls_key_pem.is_some() {
            return Err(InvalidConnection::HalfIdentity);
        }
        let tls = change.tls.unwrap_or(self.tls);
        Ok(Self {
            host: change.host.unwrap_or(self.host),
            port: change.port.unwrap_or(self.port),
            username: replaced(self.username, change.username),
            password: replaced_secret(self.password, change.password),
            tls,
            tls_ca_pem: replaced(self.tls_ca_pem.filter(|_| tls), change.tls_ca_pem),
            tls_certificate_pem: replaced(
                self.tls_certificate_pem.filter(|_| tls),
                change.tls_certificate_pem,
            ),
            tls_key_pem: replaced_secret(self.tls_key_pem.filter(|_| tls), change.tls_key_pem),
        })
    }
}

impl From<Target> for Connection {
    fn from(target: Target) -> Self {
        let (username, password) = match target.login {
            Some(login) => (login.username, Some(login.password)),
            None => (None, None),
        };
        let tls = target.tls.is_some();
        let settings = target.tls.unwrap_or_default();
        let (certificate, key) = match settings.identity {
            Some(identity) => (Some(identity.certificate_pem), Some(identity.key_pem)),
            None => (None, None),
        };
        Self {
            host: target.address.host,
            port: target.address.port,
            username,
            password: password.filter(|password| !password.expose_secret().is_empty()),
            tls,
            tls_ca_pem: settings.ca_pem,
            tls_certificate_pem: certificate,
            tls_key_pem: key,
        }
    }
}

impl ConnectionChange {
    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        let Self {
            host,
            port,
            username,
            password,
            tls,
            tls_ca_pem,
            tls_certificate_pem,
            tls_key_pem,
        } = self;
        let texts = [host, username, tls_ca_pem, tls_certificate_pem];
        port.is_none()
            && tls.is_none()
            && texts.iter().all(|text| text.is_none())
            && password.is_none()
            && tls_key_pem.is_none()
    }
}

fn text(text: Option<&String>) -> &str {
    text.map_or("", String::as_str)
}

fn secret(secret: Option<&SecretString>) -> &str {
    secret.map_or("", |secret| secret.expose_secret())
}

fn replaced(old: Option<String>, new: Option<String>) -> Option<String> {
    match new {
        None => old,
        Some(new) => Some(new).filter(|new| !new.is_empty()),
    }
}

fn replaced_secret(old: Option<SecretString>, new: Option<SecretString>) -> Option<SecretString> {
    match new {
        None => old,
        Some(new) => Some(new).filter(|new| !new.expose_secret().is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Connection {
        Connection {
            host: "db".into(),
            port: 6380,
            username: Some("backup".into()),
            password: Some("old".to_owned().into()),
            tls: true,
            tls_ca_pem: Some("ca".into()),
            tls_certificate_pem: Some("cert".into()),
            tls_key_pem: Some("key".to_owned().into()),
        }
    }

    fn password(text: &str) -> Option<SecretString> {
        Some(text.to_owned().into())
    }

    #[test]
    fn a_change_touches_what_it_names_and_an_empty_text_takes_away() {
        let same = stored().changed(ConnectionChange::default()).unwrap();
        assert_eq!(format!("{same:?}"), format!("{:?}", stored()));
        let change = ConnectionChange {
            username: Some(String::new()),
            password: password("new"),
            tls_certificate_pem: Some(String::new()),
            tls_key_pem: password(""),
            ..ConnectionChange::default()
        };
        assert!(!change.is_empty() && ConnectionChange::default().is_empty());
        let target = stored().changed(change).unwrap().target().unwrap();
        let login = target.login.unwrap();
        assert_eq!((login.username, login.password.expose_secret()), (None, "new"));
        let tls = target.tls.unwrap();
        assert_eq!((tls.ca_pem.as_deref(), tls.identity.is_none()), (Some("ca"), true));
    }

    #[test]
    fn a_stored_password_is_sent_to_nobody_who_has_not_had_it() {
        let changes = [
            ConnectionChange { host: Some("evil".into()), ..ConnectionChange::default() },
            ConnectionChange { port: Some(1), ..ConnectionChange::default() },
            ConnectionChange { tls: Some(false), ..ConnectionChange::default() },
        ];
        for change in changes {
            let refused = stored().changed(change.clone()).unwrap_err();
            assert_eq!(refused, InvalidConnection::PasswordNeeded);
            for given in ["new", ""] {
                let change = ConnectionChange { password: password(given), ..change.clone() };
                let target = stored().changed(change).unwrap().target().unwrap();
                assert_eq!(target.login.unwrap().password.expose_secret(), given);
            }
            let without = Connection { password: None, ..stored() };
            assert!(without.changed(change).is_ok());
        }
        let same = ConnectionChange { host: Some("db".into()), ..ConnectionChange::default() };
        assert!(stored().changed(same).is_ok());
    }

    #[test]
    fn no_control_character_gets_into_a_login_or_a_host() {
        for bad in ["a\r\nQUIT", "a\n", "\0", "a\u{7f}", "\u{85}"] {
            let user = Connection { username: Some(bad.into()), ..stored() };
            let secret = Connection { password: password(bad), ..stored() };
            for refused in [user, secret] {
                assert_eq!(refused.target().unwrap_err(), InvalidConnection::LoginControls);
            }
            let host = Connection { host: bad.into(), ..stored() };
            assert_eq!(host.target().unwrap_err(), InvalidConnection::Address);
        }
        assert!(Connection { password: password("ä €/ 🔑"), ..stored() }.target().is_ok());
    }

    #[test]
    fn a_certificate_comes_with_its_key_and_goes_with_tls() {
        let half = ConnectionChange {
            tls_certificate_pem: Some("other".into()),
            ..ConnectionChange::default()
        };
        assert_eq!(stored().changed(half).unwrap_err(), InvalidConnection::HalfIdentity);
        let plain = ConnectionChange {
            tls: Some(false),
            password: password("p"),
            ..ConnectionChange::default()
        };
        assert!(stored().changed(plain.clone()).unwrap().target().unwrap().tls.is_none());
        let odd = ConnectionChange { tls_ca_pem: Some("ca".into()), ..plain };
        let refused = stored().changed(odd).unwrap().target().unwrap_err();
        assert_eq!(refused, InvalidConnection::CertificatesWithoutTls);
    }
}

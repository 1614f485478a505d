//! How to reach a server that is to be adopted, as clients say it.

use cachevault_domain::{Address, Identity, Login, Target, TlsSettings};
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;

/// The longest host name, bytes (RFC 1035).
const HOST_BYTES_MAX: usize = 253;
const PEM_BYTES_MAX: usize = 256 << 10;
const LOGIN_BYTES_MAX: usize = 1024;

/// How to reach a server.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectionBody {
    /// Host name or address.
    #[schema(example = "10.0.0.7", min_length = 1, max_length = 253)]
    pub(crate) host: String,
    #[schema(example = 6379, minimum = 1)]
    pub(crate) port: u16,
    /// ACL user; without a password one that needs none (`nopass`).
    #[schema(max_length = 1024)]
    pub(crate) username: Option<String>,
    #[schema(value_type = Option<String>, format = Password, max_length = 1024)]
    pub(crate) password: Option<SecretString>,
    #[serde(default)]
    pub(crate) tls: bool,
    /// Certificates to trust instead of the operating system's; only with `tls`.
    pub(crate) tls_ca_pem: Option<String>,
    /// The certificate chain to present; needs its key.
    pub(crate) tls_certificate_pem: Option<String>,
    #[schema(value_type = Option<String>, format = Password)]
    pub(crate) tls_key_pem: Option<SecretString>,
}

impl ConnectionBody {
    /// How to reach the server, or what is wrong with the body.
    pub(crate) fn target(self) -> Result<Target, String> {
        use secrecy::ExposeSecret;
        let secret_bytes =
            |secret: &Option<SecretString>| secret.as_ref().map_or(0, |s| s.expose_secret().len());
        let text_bytes = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        if self.host.is_empty() || self.host.len() > HOST_BYTES_MAX || self.port == 0 {
            return Err("`host` must be a host name or address, `port` 1 to 65535".into());
        }
        if text_bytes(&self.username).max(secret_bytes(&self.password)) > LOGIN_BYTES_MAX {
            return Err("`username` and `password` must not exceed 1024 bytes".into());
        }
        let pem_bytes = text_bytes(&self.tls_ca_pem)
            .max(text_bytes(&self.tls_certificate_pem))
            .max(secret_bytes(&self.tls_key_pem));
        if pem_bytes > PEM_BYTES_MAX {
            return Err("a PEM text must not exceed 256 KiB".into());
        }
        let identity = match (self.tls_certificate_pem, self.tls_key_pem) {
            (Some(certificate_pem), Some(key_pem)) => Some(Identity { certificate_pem, key_pem }),
            (None, None) => None,
            _ => return Err("a client certificate needs its key, and a key its certificate".into()),
        };
        if !self.tls && (self.tls_ca_pem.is_some() || identity.is_some()) {
            return Err("certificates are given, but `tls` is not set".into());
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
        })
    }
}

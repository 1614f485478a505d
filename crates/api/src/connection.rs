//! The connection to a server that is registered, as request bodies describe it.

use cachevault_domain::{Connection, InvalidConnection, Target};
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;

/// How to reach a server.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectionBody {
    /// Host name or address.
    #[schema(example = "10.0.0.7", min_length = 1, max_length = 253)]
    pub(crate) host: String,
    #[schema(example = 6379, minimum = 1)]
    pub(crate) port: u16,
    /// ACL user. Without a password, the user must need none (`nopass`).
    #[schema(max_length = 1024)]
    pub(crate) username: Option<String>,
    #[schema(value_type = Option<String>, format = Password, max_length = 1024)]
    pub(crate) password: Option<SecretString>,
    #[serde(default)]
    pub(crate) tls: bool,
    /// Trusted CA certificates, instead of those of the operating system; only with `tls`.
    pub(crate) tls_ca_pem: Option<String>,
    /// The client certificate chain; requires the key.
    pub(crate) tls_certificate_pem: Option<String>,
    #[schema(value_type = Option<String>, format = Password)]
    pub(crate) tls_key_pem: Option<SecretString>,
}

impl ConnectionBody {
    /// The target of the connection, or the invalid field.
    pub(crate) fn target(self) -> Result<Target, InvalidConnection> {
        let connection = Connection {
            host: self.host,
            port: self.port,
            username: self.username,
            password: self.password,
            tls: self.tls,
            tls_ca_pem: self.tls_ca_pem,
            tls_certificate_pem: self.tls_certificate_pem,
            tls_key_pem: self.tls_key_pem,
        };
        connection.target()
    }
}

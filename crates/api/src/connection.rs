//! How to reach a server that is to be adopted, as clients say it.

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

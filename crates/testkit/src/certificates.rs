use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// A certificate authority of a test, with certificates for 127.0.0.1 and for a client.
pub struct Certificates {
    pub ca_pem: String,
    pub client_certificate_pem: String,
    pub client_key_pem: String,
    folder: PathBuf,
}

impl Certificates {
    /// Issues all certificates, and writes the server's files into `folder`.
    pub fn issue(folder: &Path) -> Self {
        let mut ca = CertificateParams::new([]).expect("parameters");
        ca.distinguished_name.push(DnType::CommonName, "test authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca =
            CertifiedIssuer::self_signed(ca, KeyPair::generate().expect("a key")).expect("a CA");
        let issue = |name: &str| {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new([name.to_owned()]).expect("parameters");
            params.distinguished_name.push(DnType::CommonName, name);
            let certificate = params.signed_by(&key, &ca).expect("a certificate");
            (certificate.pem(), key.serialize_pem())
        };
        let (server_pem, server_key_pem) = issue("127.0.0.1");
        let (client_certificate_pem, client_key_pem) = issue("client");
        let ca_pem = ca.pem();
        for (name, pem) in
            [("ca.pem", &ca_pem), ("server.pem", &server_pem), ("server.key", &server_key_pem)]
        {
            std::fs::write(folder.join(name), pem).expect("a PEM file is written");
        }
        let private = Permissions::from_mode(0o600);
        std::fs::set_permissions(folder.join("server.key"), private).expect("a private key");
        Self { ca_pem, client_certificate_pem, client_key_pem, folder: folder.to_owned() }
    }

    /// Options of a server that listens on `port` with TLS only, optionally with client
    /// certificates.
    pub fn server_options(&self, port: u16, ask_client: bool) -> Vec<String> {
        let file = |name: &str| self.folder.join(name).display().to_string();
        [
            ("--tls-port", port.to_string()),
            ("--tls-ca-cert-file", file("ca.pem")),
            ("--tls-cert-file", file("server.pem")),
            ("--tls-key-file", file("server.key")),
            ("--tls-auth-clients", if ask_client { "yes" } else { "no" }.to_owned()),
        ]
        .into_iter()
        .flat_map(|(option, value)| [option.to_owned(), value])
        .collect()
    }
}
